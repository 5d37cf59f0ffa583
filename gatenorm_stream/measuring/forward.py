"""One pass over the weights: the loss of a model and of many choices of removed attention.

One row of tokens serves for choosing: statistics and means are taken on it. Another is judged on. A variant is a
row of its own from the first layer on whose attention it drops; variants that have dropped the same so far share
it. A compensated variant has a row for choosing too as long as it needs means, so that each mean is that of the
model in which earlier attention is replaced already.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
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

    def path(self, layers: int) -> Path:
        """Through the first so many layers."""
        return tuple((layer, self._in_place(layer)) for layer in sorted(set(self.dropped)) if layer < layers)

    def needs_means(self, layer: int) -> bool:
        """In this layer or a later one."""
        return self.compensated and self.constants is None and max(self.dropped, default=-1) >= layer

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
    """`losses` are those of the unpruned model; `variants` stand in the order in which they were asked for."""

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


_WHOLE = (_Row((), choosing=True), _Row((), choosing=False))


def run(
    decoder: Decoder,
    choosing: TokenRow,
    judging: TokenRow,
    variants: Sequence[Variant] = (),
    steps: Steps = lambda done, total: None,
) -> Outcome:
    """Both rows of tokens must be equally long, two tokens at least.

    Raises ValueError if they are not, or a variant drops a layer that is not there or has no attention.
    """
    if len(choosing) != len(judging) or len(judging) < 2:
        raise ValueError(
            f"{len(choosing)} tokens for choosing, {len(judging)} for judging; give as many, at least 2"
        )
    if beyond := [layer for v in variants for layer in v.dropped if not 0 <= layer < decoder.layers]:
        raise ValueError(f"there is no layer {beyond[0]}")
    sublayers: list[Sublayer] = []
    means: dict[Path, Constant] = {}
    rows: Sequence[_Row] = _WHOLE
    stream = decoder.embed(np.stack([choosing, judging]))
    for layer in range(decoder.layers):
        steps(layer, decoder.layers + 1)
        sources = {row: place for place, row in enumerate(rows)}
        rows = _rows(variants, layer)
        if rows != tuple(sources):
            stream = stream[[sources[row.before(layer)] for row in rows]]
        attention = _Attention(layer, rows, means, decoder)
        stream = decoder.layer(layer, stream, attention.idle, attention.settle)
        sublayers += attention.seen
        if not attention.seen and any(layer in v.dropped for v in variants):
            raise ValueError(f"layer {layer} has no attention that could be dropped")
    steps(decoder.layers, decoder.layers + 1)
    judged = [_WHOLE[1], *(_Row(v.path(decoder.layers), choosing=False) for v in variants)]
    once = tuple(dict.fromkeys(judged))
    found = decoder.losses(stream[[rows.index(row) for row in once]], np.tile(judging, (len(once), 1)))
    losses = dict(zip(once, found, strict=True))
    steps(decoder.layers + 1, decoder.layers + 1)
    return Outcome(
        losses[_WHOLE[1]],
        tuple(sublayers),
        tuple(Judged(losses[row], _constants(row.path, means)) for row in judged[1:]),
    )


def losses_of(decoder: Decoder, judging: TokenRow, steps: Steps = lambda done, total: None) -> Losses:
    """Of the model as it is: what `run` gives as `losses`, without a row for choosing."""
    stream = decoder.embed(judging[None])
    for layer in range(decoder.layers):
        steps(layer, decoder.layers + 1)
        stream = decoder.layer(layer, stream, np.zeros(1, np.bool_), lambda before, attention: None)
    steps(decoder.layers, decoder.layers + 1)
    (found,) = decoder.losses(stream, judging[None])
    steps(decoder.layers + 1, decoder.layers + 1)
    losses: Losses = found
    return losses


def _rows(variants: Sequence[Variant], layer: int) -> tuple[_Row, ...]:
    """Those that differ in this layer: first the whole model's two."""
    rows = dict.fromkeys(_WHOLE)
    for variant in variants:
        path = variant.path(layer + 1)
        rows[_Row(path, choosing=False)] = None
        if variant.needs_means(layer):
            rows[_Row(path, choosing=True)] = None
    return tuple(rows)


class _Attention:
    """One layer's: looks at the whole model's, and replaces those of variants that drop it."""

    def __init__(self, layer: int, rows: Sequence[_Row], means: dict[Path, Constant], decoder: Decoder) -> None:
        self._layer = layer
        self._added = decoder.added
        self._replaced = {place: row for place, row in enumerate(rows) if row.replaced(layer) is not None}
        self._means = means
        self.seen: list[Sublayer] = []
        self.idle = np.array(
            [
                place in self._replaced and not (row.choosing and row.replaced(layer) == MEAN)
                for place, row in enumerate(rows)
            ]
        )

    def settle(self, stream: Stream, attention: Stream) -> None:
        own = attention[0]
        turned = influence(stream[0], self._added(self._layer, attention[:1])[0])
        self.seen.append(Sublayer(self._layer, turned, constant_share(own), mean_output(own)))
        for place, row in self._replaced.items():
            if row.choosing and row.replaced(self._layer) == MEAN:
                self._means[row.path] = mean_output(attention[place])
        for place, row in self._replaced.items():
            attention[place] = _constants(row.path, self._means).get(self._layer, 0)


def _constants(path: Path, means: Mapping[Path, Constant]) -> dict[int, Constant]:
    """What is in the place of attention, by layer; nothing of layers where there is nothing."""
    found = {}
    for count, (layer, what) in enumerate(path, start=1):
        if what == MEAN:
            found[layer] = means[path[:count]]
        elif what != NOTHING:
            found[layer] = np.frombuffer(what, "<f4")
    return found
