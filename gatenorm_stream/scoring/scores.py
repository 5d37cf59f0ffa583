"""The result of scoring, as data."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class LayerScore:
    """`heads` are the norms of the single query heads; the joint reading has none."""

    layer: int
    score: float
    heads: tuple[float, ...]
