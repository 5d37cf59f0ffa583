"""One pass over the weights: the loss of a model and of many choices of removed attention.

One row of tokens serves for choosing: statistics and means are taken on it. Another is judged on. A variant is a
row of its own from the first layer on whose attention it drops; variants that have dropped the same so far share
it. A compensated variant has a row for choosing too as far as it needs means, so that each mean is that of the
model in which earlier attention is replaced already. No row goes further than somebody asks for what it gives.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from gatenorm_stream.measuring.decoder import Decoder, Stream
from gatenorm_stream.measuring.statistics import constant_share, influence, mean_output

Constant: TypeAlias = npt.NDArray[np.float32]
"""(hidden,)"""
TokenRow: TypeAlias = npt.NDArray[np.int64]
"""(length,)"""
Losses: TypeAlias = npt.NDArray[np.float64]
"""(length - 1,): nats of each token but the first."""
Steps: TypeAlias = Callable[[int, int], None]
"""Called as steps(done, in all); a layer is a step, and so is the head."""
Path: TypeAlias = tuple[tuple[int, bytes], ...]
"""The layers whose attention is replaced so far, and by what."""

NOTHING, MEAN = b"nothing", b"mean"


@dataclass(frozen=True)
class Variant:
    """Attention of the layers `dropped` puts out nothing; if `compensated`, the same at every token: what
    `constants` say of each of these layers, else the mean of what it put out in this pass.
    """

    dropped: tuple[int, ...]
    compensated: bool = False
    constants: Mapping[int, Constant] | None = None

    def __post_init__(self) -> None:
        if self.constants is not None and not (self.compensated and set(self.dropped) <= self.constants.keys()):
            raise ValueError(f"constants are for compensated variants, one for each of {self.dropped}")

    @property
    def rows(self) -> int:
        """Of tokens, at most: one for judging, and one for choosing if means are taken."""
        return 2 if self.compensated and self.constants is None else 1

    def path(self, layers: int) -> Path:
        """Through the first so many layers."""
        return tuple((layer, self._in_place(layer)) for layer in sorted(set(self.dropped)) if layer < layers)

    def takes_mean(self, layer: int) -> bool:
        """Whether the mean of this layer's attention is put in its place."""
        return self.compensated and self.constants is None and layer in self.dropped

    def _in_place(self, layer: int) -> bytes:
        """What is there instead of this layer's attention: equal bytes do the same."""
        if not self.compensated:
            return NOTHING
        return MEAN if self.constants is None else np.asarray(self.constants[layer], "<f4").tobytes()


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

    Without `looks` there are no `sublayers`, without `whole` no `losses` (an empty array).
    """

    losses: Losses
    sublayers: tuple[Sublayer, ...]
    variants: tuple[Judged, ...]


class _Row(NamedTuple):
    path: Path
    choosing: bool

    def replaced(self, layer: int) -> bytes | None:
        """What is there instead of this layer's attention, None if it stays."""
        return self.path[-1][1] if self.path and self.path[-1][0] == layer else None

    def before(self, layer: int) -> _Row:
        """The row that this one was until then."""
        return self if self.replaced(layer) is None else _Row(self.path[:-1], self.choosing)


_CHOOSING, _JUDGING = _Row((), choosing=True), _Row((), choosing=False)
"""The unpruned model's."""


def run(
    decoder: Decoder,
    choosing: TokenRow,
    judging: TokenRow,
    variants: Sequence[Variant] = (),
    steps: Steps = lambda done, total: None,
    *,
    looks: bool = True,
    whole: bool = True,
) -> Outcome:
    """With `looks`, statistics of the unpruned model's attention are taken; with `whole`, its own loss.

    Both rows of tokens must be equally long, two tokens at least. Raises ValueError if they are not, or a variant
    drops a layer that is not there or has no attention.
    """
    if len(choosing) != len(judging) or len(judging) < 2:
        raise ValueError(
            f"{len(choosing)} tokens for choosing, {len(judging)} for judging; give as many, at least 2"
        )
    if beyond := [layer for v in variants for layer in v.dropped if not 0 <= layer < decoder.layers]:
        raise ValueError(f"there is no layer {beyond[0]}")
    judged = [_Row(v.path(decoder.layers), choosing=False) for v in variants]
    once = tuple(dict.fromkeys([*([_JUDGING] if whole else []), *judged]))
    plan = [*_rows(variants, decoder.layers, once, looks), once]
    sublayers: list[Sublayer] = []
    means: dict[Path, Constant] = {}
    present = _before(0, plan[0])
    stream = decoder.embed(np.stack([choosing if row.choosing else judging for row in present]))
    for layer, (rows, following) in enumerate(pairwise(plan)):
        steps(layer, decoder.layers + 1)
        if rows != present:
            stream = stream[[present.index(row.before(layer)) for row in rows]]
        ahead = set(_before(layer + 1, following))
        onward = np.flatnonzero([row in ahead for row in rows])
        present = tuple(rows[index] for index in onward)
        attention = _Attention(layer, rows, means, decoder, looks)
        stream = decoder.layer(layer, stream, attention.idle, attention.settle, onward)
        sublayers += attention.seen
        if not attention.settled and any(layer in v.dropped for v in variants):
            raise ValueError(f"layer {layer} has no attention that could be dropped")
    steps(decoder.layers, decoder.layers + 1)
    losses: dict[_Row, Losses] = {}
    if once:
        found = decoder.losses(stream[[present.index(row) for row in once]], np.tile(judging, (len(once), 1)))
        losses = dict(zip(once, found, strict=True))
    steps(decoder.layers + 1, decoder.layers + 1)
    return Outcome(
        losses[_JUDGING] if whole else np.empty(0),
        tuple(sublayers),
        tuple(Judged(losses[row], _constants(row.path, means)) for row in judged),
    )


def losses_of(decoder: Decoder, judging: TokenRow, steps: Steps = lambda done, total: None) -> Losses:
    """Of the model as it is: what `run` gives as `losses`, without a row for choosing."""
    stream = decoder.embed(judging[None])
    for layer in range(decoder.layers):
        steps(layer, decoder.layers + 1)
        stream = decoder.layer(layer, stream, np.zeros(1, np.bool_), lambda before, attention: None, np.arange(1))
    steps(decoder.layers, decoder.layers + 1)
    (found,) = decoder.losses(stream, judging[None])
    steps(decoder.layers + 1, decoder.layers + 1)
    losses: Losses = found
    return losses


def _rows(variants: Sequence[Variant], layers: int, last: Sequence[_Row], looks: bool) -> list[tuple[_Row, ...]]:
    """The rows that are needed in each layer, if those of `last` are needed behind all of them."""
    found: list[tuple[_Row, ...]] = []
    following = tuple(last)
    for layer in reversed(range(layers)):
        means = (_Row(v.path(layer + 1), choosing=True) for v in variants if v.takes_mean(layer))
        looked_at = [_CHOOSING] if looks else []
        following = tuple(dict.fromkeys([*looked_at, *_before(layer + 1, following), *means]))
        found.append(following)
    return found[::-1]


def _before(layer: int, rows: Sequence[_Row]) -> tuple[_Row, ...]:
    """The rows that these are until then."""
    return tuple(dict.fromkeys(row.before(layer) for row in rows))


class _Attention:
    """One layer's: looks at the whole model's, and replaces those of variants that drop it."""

    def __init__(
        self, layer: int, rows: Sequence[_Row], means: dict[Path, Constant], decoder: Decoder, looks: bool
    ) -> None:
        self._layer = layer
        self._added = decoder.added
        self._replaced = {index: row for index, row in enumerate(rows) if row.replaced(layer) is not None}
        self._means = means
        self._looked_at = rows.index(_CHOOSING) if looks else None
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
            self.seen.append(Sublayer(self._layer, turned, constant_share(own), mean_output(own)))
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
