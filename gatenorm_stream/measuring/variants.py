"""Choices that one pass judges, and the rows of tokens that each layer has to run for them.

One row of tokens serves for choosing: statistics and means are taken on it. Another is judged on. A variant is a
row of its own from the first layer on whose attention it drops; variants that have dropped the same so far share
it. A compensated variant has a row for choosing too as far as it needs means, so that each mean is that of the
model in which earlier attention is replaced already. No row goes further than somebody asks for what it gives.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

Constant: TypeAlias = npt.NDArray[np.float32]
"""(hidden,)"""
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


class Row(NamedTuple):
    path: Path
    choosing: bool

    def replaced(self, layer: int) -> bytes | None:
        """What is there instead of this layer's attention, None if it stays."""
        return self.path[-1][1] if self.path and self.path[-1][0] == layer else None

    def before(self, layer: int) -> Row:
        """The row that this one was until then."""
        return self if self.replaced(layer) is None else Row(self.path[:-1], self.choosing)


CHOOSING, JUDGING = Row((), choosing=True), Row((), choosing=False)
"""The unpruned model's."""


def rows_of_layers(
    variants: Sequence[Variant], layers: int, last: Sequence[Row], looks: bool, known: Sequence[Row]
) -> list[tuple[Row, ...]]:
    """The rows that are needed in each layer, if those of `last` are needed behind all of them."""
    found: list[tuple[Row, ...]] = []
    following = tuple(last)
    for layer in reversed(range(layers)):
        means = (Row(v.path(layer + 1), choosing=True) for v in variants if v.takes_mean(layer))
        looked_at = [CHOOSING] if looks else []
        following = tuple(dict.fromkeys([*looked_at, *rows_before(layer + 1, following, known), *means]))
        found.append(following)
    return found[::-1]


def rows_before(layer: int, rows: Sequence[Row], known: Sequence[Row] = ()) -> tuple[Row, ...]:
    """The rows that these are until then, but for known ones."""
    return tuple(dict.fromkeys(earlier for row in rows if (earlier := row.before(layer)) not in known))


def arranged(layer: int, rows: Sequence[Row], present: Sequence[Row]) -> tuple[Row, ...]:
    """`rows` in the order of those that they were until then; behind them those that share theirs with another."""
    heirs: dict[Row, Row] = {}
    for row in rows:
        heirs.setdefault(row.before(layer), row)
    first = [heirs[row] for row in present]
    return (*first, *(row for row in rows if row not in first))
