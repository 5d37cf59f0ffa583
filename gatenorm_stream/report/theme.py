"""The colours of pictures, for light and for dark pages.

Blue and vermilion can be distinguished with every kind of colour blindness. The heat scale, from violet through
green to yellow, gets lighter at every step, so that it survives a printer without colour.
"""

from __future__ import annotations

from itertools import pairwise

PAPER = "paper"
LIGHT = {PAPER: "#ffffff", "text": "#1b1b1f", "muted": "#5c5f66", "stays": "#0072b2", "goes": "#c04a00"}
DARK = {PAPER: "#16181d", "text": "#e8e8ea", "muted": "#a3a7b0", "stays": "#56b4e9", "goes": "#ff9a52"}
HEAT = ((43, 10, 87), (49, 72, 127), (34, 128, 138), (84, 184, 104), (247, 231, 70))


def heat_colours(steps: int) -> list[str]:
    """`steps` colours from the lowest to the highest, as #rrggbb."""
    return [_mixed(n / (steps - 1) * (len(HEAT) - 1)) for n in range(steps)]


def _mixed(position: float) -> str:
    pairs = list(pairwise(HEAT))
    n = min(int(position), len(pairs) - 1)
    (low, high), part = pairs[n], position - n
    return "#" + "".join(f"{round(a + part * (b - a)):02x}" for a, b in zip(low, high, strict=True))
