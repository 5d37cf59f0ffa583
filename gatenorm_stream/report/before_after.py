"""A model and an output of ours side by side: what is left, what it takes, and what it costs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from gatenorm_stream.errors import ComparisonError
from gatenorm_stream.families.model import Model
from gatenorm_stream.planning.measured import Measured
from gatenorm_stream.planning.plan import Plan
from gatenorm_stream.report.quantities import layer_list
from gatenorm_stream.report.size_table import compared_sizes, table


@dataclass(frozen=True)
class Side:
    """Sizes as the headers tell them. `attention` are the layers that have it; KV cache: bytes of a token at 16
    bits a number.
    """

    title: str
    layers: int
    attention: tuple[int, ...]
    parameters: int
    weight_bytes: int
    kv_bytes: int


def side(model: Model) -> Side:
    source = model.checkpoint
    return Side(
        source.source.title,
        model.layers,
        tuple(a.layer for a in model.attention),
        source.parameters,
        source.weight_bytes,
        model.kv_bytes_per_token(),
    )


@dataclass(frozen=True)
class BeforeAfter:
    """`plan` is what the output's record says; None where that is not at hand, as on the Hub."""

    before: Side
    after: Side
    plan: Plan | None

    def check(self) -> None:
        """Raises ComparisonError for an output that can't be one of that model."""
        theirs, ours = self.before, self.after
        if theirs.layers != ours.layers or not set(ours.attention) <= set(theirs.attention):
            raise ComparisonError(
                f"{ours.title} is no output of {theirs.title}: their layers don't fit; give its own source"
            )

    @property
    def gone(self) -> tuple[int, ...]:
        return tuple(n for n in self.before.attention if n not in self.after.attention)

    @property
    def zeroed(self) -> tuple[int, ...]:
        return tuple(n for n in self.plan.dropped if n in self.after.attention) if self.plan else ()

    @property
    def measured(self) -> Measured | None:
        return self.plan.own_measurement if self.plan else None


def before_after_table(pair: BeforeAfter, width: int) -> str:
    a, b = pair.before, pair.after
    rows = compared_sizes(
        (len(a.attention), len(b.attention)),
        (a.parameters, b.parameters),
        (a.weight_bytes, b.weight_bytes),
        (a.kv_bytes, b.kv_bytes),
    )
    if m := pair.measured:
        rows.append(("loss, nats a token", f"{m.loss:.3f}", f"{m.pruned:.3f}", f"{m.rise:+.3f}"))
    return table(rows, width)


def gone_lines(pair: BeforeAfter) -> Iterator[str]:
    """Which layers, and on what the loss was measured."""
    if pair.gone:
        yield f"attention is gone from {len(pair.gone)} of {pair.before.layers} layers: {layer_list(pair.gone)}"
    if pair.zeroed:
        zeroed = layer_list(pair.zeroed)
        yield f"attention is zeroed in {len(pair.zeroed)} layers, where every shape is kept: {zeroed}"
    if pair.plan and pair.plan.constants:
        yield "a constant takes its place"
    if m := pair.measured:
        yield f"loss on {m.tokens} tokens of {m.text}, standard error of the rise {m.error:.3f}"


def before_after_json(pair: BeforeAfter) -> dict[str, Any]:
    sides = {
        name: {
            "model": s.title,
            "attention_layers": list(s.attention),
            "parameters": s.parameters,
            "weight_bytes": s.weight_bytes,
            "kv_bytes_per_token": s.kv_bytes,
        }
        for name, s in (("before", pair.before), ("after", pair.after))
    }
    m = pair.measured
    loss = (
        {"before": m.loss, "after": m.pruned, "rise": m.rise, "error": m.error, "tokens": m.tokens} if m else None
    )
    return {**sides, "gone": list(pair.gone), "zeroed": list(pair.zeroed), "loss": loss}
