"""One pass over the weights: the loss of a model and of many choices of removed attention.

`variants` says which rows of tokens that takes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from gatenorm_stream.measuring.decoder import Decoder, Stream
from gatenorm_stream.measuring.finite import check_finite
from gatenorm_stream.measuring.statistics import constant_share, influence, mean_output
from gatenorm_stream.measuring.variants import (
    CHOOSING,
    JUDGING,
    MEAN,
    NOTHING,
    Constant,
    Path,
    Row,
    Variant,
    arranged,
    rows_before,
    rows_of_layers,
)

TokenRow: TypeAlias = npt.NDArray[np.int64]
"""(length,)"""
Losses: TypeAlias = npt.NDArray[np.float64]
"""(length - 1,): nats of each token but the first."""
Steps: TypeAlias = Callable[[int, int], None]
"""Called as steps(done, in all); a layer is a step, and so is the head."""


@dataclass(frozen=True)
class Sublayer:
    """Of the unpruned model, on the row for choosing: see `statistics` for what the numbers are."""

    layer: int
    influence: float
    constant: float
    mean: Constant


@dataclass(frozen=True)
class Judged:
    """A variant: `constants` are what was put in the place of attention, by layer."""

    losses: Losses
    constants: Mapping[int, Constant] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """`losses` are those of the unpruned model; `variants` stand in the order in which they were asked for.

    Without `looks` there are no `sublayers`, without `whole` no `losses` (an empty array), and without `keeps` no
    `before`: (length, hidden) for each layer, the unpruned model's stream on the row for choosing before it.
    """

    losses: Losses
    sublayers: tuple[Sublayer, ...]
    variants: tuple[Judged, ...]
    before: tuple[Stream, ...]


def run(
    decoder: Decoder,
    choosing: TokenRow,
    judging: TokenRow,
    variants: Sequence[Variant] = (),
    steps: Steps = lambda done, total: None,
    *,
    looks: bool = True,
    whole: bool = True,
    keeps: bool = False,
    before: Sequence[Stream] = (),
) -> Outcome:
    """With `looks`, statistics of the unpruned model's attention are taken, and with `keeps` its streams too; with
    `whole`, its own loss. `before` is what an earlier run on the same tokens kept: variants begin there.

    Both rows of tokens must be equally long, two tokens at least. Raises ValueError if they are not, or a variant
    drops a layer that is not there or has no attention; CheckpointError if what comes out is no number.
    """
    if len(choosing) != len(judging) or len(judging) < 2:
        raise ValueError(
            f"{len(choosing)} tokens for choosing, {len(judging)} for judging; give as many, at least 2"
        )
    if beyond := [layer for v in variants for layer in v.dropped if not 0 <= layer < decoder.layers]:
        raise ValueError(f"there is no layer {beyond[0]}")
    judged = [Row(v.path(decoder.layers), choosing=False) for v in variants]
    once = tuple(dict.fromkeys([*([JUDGING] if whole else []), *judged]))
    known = [CHOOSING] if before else []
    plan = [*rows_of_layers(variants, decoder.layers, once, looks, known), once]
    sublayers: list[Sublayer] = []
    means: dict[Path, Constant] = {}
    kept: list[Stream] = []
    present = rows_before(0, plan[0], known)
    first = decoder.embed(np.stack([choosing if row.choosing else judging for row in present]))
    held = np.empty((max(map(len, plan)), *first.shape[1:]), np.float32)
    held[: len(present)] = first
    for layer, (needed, following) in enumerate(pairwise(plan)):
        steps(layer, decoder.layers + 1)
        rows = arranged(layer, needed, present)
        for place, row in enumerate(rows[len(present) :], start=len(present)):
            earlier = row.before(layer)
            held[place] = before[layer] if earlier in known else held[present.index(earlier)]
        if keeps:
            kept.append(held[rows.index(CHOOSING)].copy())
        ahead = set(rows_before(layer + 1, following))
        onward = np.flatnonzero([row in ahead for row in rows])
        present = tuple(rows[index] for index in onward)
        attention = _Attention(layer, rows, means, decoder, looks)
        stream = decoder.layer(layer, held[: len(rows)], attention.idle, attention.settle, onward)
        if not np.may_share_memory(stream, held):
            held[: len(stream)] = stream
        sublayers += attention.seen
        if not attention.settled and any(layer in v.dropped for v in variants):
            raise ValueError(f"layer {layer} has no attention that could be dropped")
    steps(decoder.layers, decoder.layers + 1)
    losses: dict[Row, Losses] = {}
    if once:
        found = decoder.losses(held[: len(present)], np.tile(judging, (len(present), 1)))
        check_finite(found, "the loss", decoder.title)
        losses = dict(zip(present, found, strict=True))
    steps(decoder.layers + 1, decoder.layers + 1)
    return Outcome(
        losses[JUDGING] if whole else np.empty(0),
        tuple(sublayers),
        tuple(Judged(losses[row], _constants(row.path, means)) for row in judged),
        tuple(kept),
    )


def losses_of(decoder: Decoder, judging: TokenRow, steps: Steps = lambda done, total: None) -> Losses:
    """Of the model as it is: what `run` gives as `losses`, without a row for choosing."""
    stream = decoder.embed(judging[None])
    for layer in range(decoder.layers):
        steps(layer, decoder.layers + 1)
        stream = decoder.layer(layer, stream, np.zeros(1, np.bool_), lambda before, attention: None, np.arange(1))
    steps(decoder.layers, decoder.layers + 1)
    (found,) = decoder.losses(stream, judging[None])
    check_finite(found, "the loss", decoder.title)
    steps(decoder.layers + 1, decoder.layers + 1)
    losses: Losses = found
    return losses


class _Attention:
    """One layer's: looks at the whole model's, and replaces those of variants that drop it."""

    def __init__(
        self, layer: int, rows: Sequence[Row], means: dict[Path, Constant], decoder: Decoder, looks: bool
    ) -> None:
        self._layer = layer
        self._added, self._title = decoder.added, decoder.title
        self._replaced = {index: row for index, row in enumerate(rows) if row.replaced(layer) is not None}
        self._means = means
        self._looked_at = rows.index(CHOOSING) if looks else None
        self.seen: list[Sublayer] = []
        self.settled = False
        self.idle = np.array(
            [
                index in self._replaced and not (row.choosing and row.replaced(layer) == MEAN)
                for index, row in enumerate(rows)
            ]
        )

    def settle(self, stream: Stream, attention: Stream) -> None:
        self.settled = True
        if self._looked_at is not None:
            own = attention[self._looked_at]
            turned = influence(stream[self._looked_at], self._added(self._layer, own[None])[0])
            share, mean = constant_share(own), mean_output(own)
            check_finite([turned, share, *mean], f"what attention does in layer {self._layer}", self._title)
            self.seen.append(Sublayer(self._layer, turned, share, mean))
        for index, row in self._replaced.items():
            if row.choosing and row.replaced(self._layer) == MEAN:
                self._means[row.path] = mean_output(attention[index])
        for index, row in self._replaced.items():
            attention[index] = _constants(row.path, self._means).get(self._layer, 0)


def _constants(path: Path, means: Mapping[Path, Constant]) -> dict[int, Constant]:
    """What is in the place of attention, by layer; nothing of layers where there is nothing."""
    found = {}
    for count, (layer, what) in enumerate(path, start=1):
        if what == MEAN:
            found[layer] = means[path[:count]]
        elif what != NOTHING:
            found[layer] = np.frombuffer(what, "<f4")
    return found
