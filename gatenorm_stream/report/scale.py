"""How long bars are where one score is many times the rest: the axis ends below it, and its bar is broken."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

MANY = 2.5
"""So many times the next score, and the axis ends at the next."""
FEW = 8
"""At most one layer in so many is cut, and at least one may be."""
SHARE = 0.8
"""Of the room for a broken bar, what the axis takes."""


@dataclass(frozen=True)
class Scale:
    """`end` is the score at which the axis ends; bars of higher ones are broken. `highest` is the highest score."""

    end: float
    highest: float

    @property
    def cut(self) -> bool:
        return self.end < self.highest

    def breaks(self, score: float) -> bool:
        return score > self.end

    def share(self, score: float) -> float:
        """Of the room for bars, what the bar of `score` takes: 0 to 1."""
        if self.breaks(score):
            return 1.0
        return (SHARE if self.cut else 1.0) * score / (self.end or 1.0)


def scale_of(scores: Sequence[float]) -> Scale:
    falling = sorted(scores, reverse=True)
    highest = falling[0] if falling else 0.0
    gaps = list(pairwise(falling))[: max(1, len(falling) // FEW)]
    wide = [low for high, low in gaps if low > 0 and high >= MANY * low]
    return Scale(wide[-1] if wide else highest, highest)
