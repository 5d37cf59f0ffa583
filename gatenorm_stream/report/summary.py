"""What a plan does, in a few lines: what goes, what it saves, and where the result runs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from gatenorm_stream.families.model import Model
from gatenorm_stream.formats.choice import FORMATS, describe
from gatenorm_stream.planning.decide import Decision
from gatenorm_stream.planning.layout import Copied, Layout
from gatenorm_stream.planning.plan import Plan
from gatenorm_stream.printable import listed, printable
from gatenorm_stream.report.measured import measured_line
from gatenorm_stream.report.quantities import layer_list
from gatenorm_stream.report.size_table import Row, compared_sizes, table
from gatenorm_stream.scoring.selection import half

VITAL = 1
MUCH = 0.5
"""Nats a token."""
FAR = 1 / 4
"""Share of the sublayers beyond which the summary cautions; docs/evidence.md has a third and a half."""
SHOWN_FILES = 40
UNTRIED = {"sglang": "sglang (tried on a CPU only)"}


def model_line(model: Model) -> str:
    return (
        f"{model.family.architecture}: {model.layers} layers{_with_attention(model)}, hidden {model.hidden}, "
        f"{model.heads.queries} query and {model.heads.keys} key heads of {model.heads.dim}"
    )


def left_lines(model: Model) -> Iterator[str]:
    """Of an output: what is gone and what is left, and that no more goes from it."""
    if model.pruned:
        left = layer_list(tuple(a.layer for a in model.attention))
        yield f"an output of gatenorm-stream; layers without attention: {layer_list(model.pruned)}; with it: {left}"
        yield "to prune more, start from the original"


def size_rows(model: Model, plan: Plan, layout: Layout) -> list[Row]:
    """Rows for parameters, weight bytes and KV cache (at 16 bits an element)."""
    gone = plan.dropped if FORMATS[plan.format].removes else ()
    before = len(model.attention)
    source = model.checkpoint
    return compared_sizes(
        (before, before - len(gone)),
        (source.parameters, layout.parameters),
        (source.weight_bytes, layout.weight_bytes),
        (model.kv_bytes_per_token(), model.kv_bytes_per_token(gone)),
    )


def size_table(model: Model, plan: Plan, layout: Layout, width: int = 80) -> str:
    return table(size_rows(model, plan, layout), width)


def plan_lines(decision: Decision) -> Iterator[str]:
    """What goes, in which format, and which engines run the result or why not."""
    plan, choice = decision.plan, decision.form
    verb = "attention removed from" if choice.format.removes else "attention zeroed in"
    yield f"{verb} {len(plan.dropped)} of {len(plan.scores)} layers: {layer_list(plan.dropped)}"
    if plan.constants and choice.holds_constants:
        where = f", in {plan.measured.elsewhere}" if plan.measured and plan.measured.elsewhere else ""
        yield f"a constant takes its place: the mean of its output on the text{where}"
    if plan.measured:
        yield measured_line(plan.measured, plan.choice)
    if decision.following is not None:
        yield f"one more would cost {decision.following:+.3f}"
    elif plan.choice and plan.choice.max_rise is not None and len(plan.dropped) == half(len(plan.scores)):
        yield "half of the sublayers is the most that --max-rise takes"
    yield from cautions(plan)
    for format_, obstacle in choice.passed_over:
        yield f"format {format_.name} passed over: {describe(obstacle)}"
    yield f"format {plan.format}: runs in {', '.join(UNTRIED.get(e, e) for e in choice.engines)}"
    for limit in choice.limits:
        yield f"not in {', '.join(sorted(limit.engines))}: {limit.field}: {limit.reason}"
    yield from choice.cautions
    if not choice.format.removes:
        yield "every shape is kept: this saves neither memory nor time by itself"


def cautions(plan: Plan) -> Iterator[str]:
    """What of a choice has been seen to end badly, at any count."""
    layers = [s.layer for s in plan.scores]
    if (measured := plan.own_measurement) and measured.rise > MUCH:
        yield f"caution: a rise of {measured.rise:.2f} nats a token is much; expect broken text, let fewer go"
    if len(plan.dropped) > FAR * len(plan.scores) and not measured:
        yield "more than a quarter goes: in our measurements scores chose no better than chance there; measure it"
    if VITAL in plan.dropped:
        yield f"caution: layer {VITAL} goes; on the public model that we measured, that alone destroyed the text"
    if len(plan.dropped) > 1 and plan.dropped == tuple(layers[-len(plan.dropped) :]):
        less = "" if plan.constants else "; constants (--compensate) helped SmolLM2, not our decoders: measure"
        yield f"caution: all that go are the last layers, in one run{less}"


def _with_attention(model: Model) -> str:
    return (
        "" if len(model.attention) == model.layers else f", {len(model.attention)} of them with softmax attention"
    )


def file_lines(layout: Layout) -> Iterator[str]:
    """Files of the source that travel and that stay behind, and code that travels."""
    if layout.copied:
        yield f"travels along: {_listed((name, _linked(piece)) for name, piece in layout.copied.items())}"
    if layout.left_out:
        yield f"left out: {_listed(layout.left_out.items())}"
    for line in layout.missing:
        yield f"caution: the source has {line}" if line.startswith(("no ", "nothing ")) else f"caution: {line}"
    if layout.taken_out:
        yield f"taken out, since it names code of elsewhere: {_listed((line, '') for line in layout.taken_out)}"
    if layout.code:
        named = _listed((name, f"blake3 {digest}") for name, digest in layout.code.items())
        yield f"code of the source, copied as text and not run, but by trust_remote_code: {named}"


def _listed(names: Iterable[tuple[str, str]]) -> str:
    shown = [f"{printable(name)} ({printable(why)})" if why else printable(name) for name, why in names]
    return listed(shown, SHOWN_FILES)


def _linked(piece: Copied) -> str:
    """Where a link leads that somebody made; of the Hub cache, all are."""
    path = piece.file.path
    if path is None or not path.is_symlink() or (target := path.resolve()).parent.name == "blobs":
        return ""
    return f"a link to {target}"
