"""The result of scoring, as data."""

from __future__ import annotations

from dataclasses import dataclass

LARGEST_SCORE = 1e300
"""What is larger could not be compared, drawn or saved without leaving the range of numbers."""


@dataclass(frozen=True)
class LayerScore:
    """`heads` are the norms of the single query heads; the joint reading has none."""

    layer: int
    score: float
    heads: tuple[float, ...]
