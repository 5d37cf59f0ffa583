"""Scores beyond what any model has: of every size, in any number, with gaps; as a saved plan may hold them."""

from __future__ import annotations

import random

from gatenorm_stream.scoring.scores import LARGEST_SCORE, LayerScore

EXTREMES = (0.0, -0.0, 5e-324, 1e-300, 1e-160, 1.0, 1e160, LARGEST_SCORE)


def number(rng: random.Random) -> float:
    return rng.choice(EXTREMES) if rng.randrange(2) else rng.uniform(0, 1000)


def some(rng: random.Random) -> tuple[LayerScore, ...]:
    layers = sorted({rng.randrange(rng.choice((2, 10, 10**6, 10**30))) for _ in range(3)})
    if rng.randrange(2):
        layers = list(range(rng.choice((1, 3, 40, 500))))
    heads = rng.choice((0, 0, 1, 4, 70))
    return tuple(LayerScore(n, number(rng), tuple(number(rng) for _ in range(heads))) for n in layers)
