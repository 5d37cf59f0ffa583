"""How far two sets of scores agree on which layers matter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gatenorm_stream.errors import ComparisonError
from gatenorm_stream.scoring.scores import LayerScore
from gatenorm_stream.scoring.selection import Choice, select


@dataclass(frozen=True)
class Comparison:
    """`ranks` count from 1, the lowest score first; equal scores share the mean of their places.

    `correlation` is Spearman's, from -1 to 1; None where all scores of one side are equal.
    """

    scores: tuple[tuple[LayerScore, ...], tuple[LayerScore, ...]]
    ranks: tuple[tuple[float, ...], tuple[float, ...]]
    dropped: tuple[tuple[int, ...], tuple[int, ...]]
    correlation: float | None

    @property
    def common(self) -> tuple[int, ...]:
        """The layers that both would drop."""
        return tuple(sorted(set(self.dropped[0]) & set(self.dropped[1])))


def compare(a: Sequence[LayerScore], b: Sequence[LayerScore], choice: Choice) -> Comparison:
    """Raises ComparisonError if the two have not the same attention layers, SelectionError as `select` does."""
    if [s.layer for s in a] != [s.layer for s in b]:
        raise ComparisonError(
            f"one has {len(a)} attention layers up to {a[-1].layer}, the other {len(b)} up to {b[-1].layer}; only "
            "models with the same attention layers can be compared"
        )
    ranks = ranked([s.score for s in a]), ranked([s.score for s in b])
    scores, dropped = (tuple(a), tuple(b)), (select(a, choice), select(b, choice))
    return Comparison(scores, (tuple(ranks[0]), tuple(ranks[1])), dropped, correlation(*ranks))


def ranked(values: Sequence[float]) -> list[float]:
    """Ranks from 1; equal values share the mean of their places."""
    _, which, counts = np.unique(np.asarray(values, np.float64), return_inverse=True, return_counts=True)
    means = np.cumsum(counts) - (counts - 1) / 2
    return [float(rank) for rank in means[which]]


def correlation(a: Sequence[float], b: Sequence[float]) -> float | None:
    """Pearson's; of ranks, that is Spearman's. None where one side does not vary."""
    x, y = (np.asarray(side, np.float64) - np.mean(side) for side in (a, b))
    length = float(np.sqrt((x @ x) * (y @ y)))
    return float(x @ y) / length if length else None
