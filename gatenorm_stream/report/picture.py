"""A model's scores as a picture: a row for each layer, with the bar of its score and the norms of its heads.

The picture is plain data, boxes and labels in pixels from the top left corner; `svg` and `png` draw it. It is
readable without colour: the bars of layers that go are hollow, and a bracket beside them names these layers.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, TypeAlias

from gatenorm_stream.report.scale import SHARE, Scale, scale_of
from gatenorm_stream.scoring.scores import LayerScore
from gatenorm_stream.scoring.selection import rank

Ink: TypeAlias = Literal["text", "muted", "stays", "goes", "paper"] | int
"""A name that the theme gives a colour, or a step of the heat scale."""

HEAT_STEPS = 64
HEADING, MARGIN, NUMBERS, BARS, MARKS = 98, 16, 40, 300, 90
TALLEST, SMALLEST_ROW, LARGEST_ROW = 640, 6, 18
WIDEST, SMALLEST_CELL, LARGEST_CELL = 520, 4, 36
LEGEND, STRIP = 220, 2
BREAK = 7
"""Pixels of the gap in a bar that is longer than drawn."""
BROKEN_AT = (1 + SHARE) / 2
"""Of the room for bars, where that gap begins."""


@dataclass(frozen=True)
class Box:
    """`title` is shown where a pointer rests on it."""

    x: float
    y: float
    width: float
    height: float
    ink: Ink
    title: str = ""
    hollow: bool = False


@dataclass(frozen=True)
class Label:
    """`y` is the base line."""

    x: float
    y: float
    text: str
    ink: Ink = "text"
    size: int = 11
    anchor: Literal["start", "middle", "end"] = "start"
    bold: bool = False


@dataclass(frozen=True)
class Line:
    """Through `points` (x, y), two pixels wide."""

    points: tuple[tuple[float, float], ...]
    ink: Ink
    dashed: bool = False


@dataclass(frozen=True)
class Picture:
    title: str
    width: int
    height: int
    boxes: tuple[Box, ...]
    labels: tuple[Label, ...]
    lines: tuple[Line, ...] = ()


def score_picture(
    name: str,
    reading: str | None,
    scores: Sequence[LayerScore],
    dropped: tuple[int, ...],
    fate: str = "would go",
) -> Picture:
    """Bars of the scores and, where the reading has them, a heat map of layers by heads; layer 0 is on top.

    `reading` is None where the scores are influences. `fate` is what happens to the attention of the layers
    `dropped`.
    """
    row = max(SMALLEST_ROW, min(LARGEST_ROW, TALLEST // len(scores)))
    heads = max(len(s.heads) for s in scores)
    cell = max(SMALLEST_CELL, min(LARGEST_CELL, WIDEST // heads)) if heads else 0
    bars = MARGIN + NUMBERS
    marks = bars + BARS
    map_ = marks + MARKS
    top, bottom = HEADING, HEADING + row * len(scores)
    width = map_ + (max(heads * cell, LEGEND) if heads else MARKS // 2) + MARGIN
    what, how = ("Gate-Norm scores", f"reading {reading}") if reading else ("Block influence", "measured")
    title = f"{what} of {name}"
    scale = scale_of([s.score for s in scores])
    broken = "; broken: longer than drawn" if scale.cut else ""
    parts: list[Iterator[Box | Label]] = [
        heading(
            title,
            f"{how}; hollow: attention of {len(dropped)} of {len(scores)} layers {fate}{broken}",
            width,
        ),
        _bars(scores, dropped, scale, bars, top, row),
        _layer_numbers(scores, bars - 8, top, row),
        _axis(scale, bars, top, bottom),
        _marks(scores, dropped, marks, top, row),
    ]
    if heads:
        parts.append(_heat_map(scores, map_, top, row, cell))
    items = [item for part in parts for item in part]
    boxes = tuple(item for item in items if isinstance(item, Box))
    return Picture(
        printable(title), width, bottom + 56, boxes, tuple(item for item in items if isinstance(item, Label))
    )


def heading(title: str, line: str, width: int) -> Iterator[Label]:
    """The title, cut to the width, and a line below it."""
    room = (width - 2 * MARGIN) // 10
    title = printable(title)
    yield Label(MARGIN, 28, title if len(title) <= room else f"{title[: room - 1]}…", size=15, bold=True)
    yield Label(MARGIN, 49, line, "muted", 12)


def printable(text: str) -> str:
    """With a question mark for what can't be seen."""
    return "".join(c if c.isprintable() else "?" for c in text)


def _bars(
    scores: Sequence[LayerScore], dropped: tuple[int, ...], scale: Scale, x: int, top: int, row: int
) -> Iterator[Box]:
    ranks = {s.layer: n for n, s in enumerate(rank(scores), start=1)}
    gap = 1 if row < 12 else 2
    for n, s in enumerate(scores):
        goes = s.layer in dropped
        title = f"layer {s.layer}: {s.score:.5g}, rank {ranks[s.layer]}{', goes' if goes else ''}"
        ink: Ink = "goes" if goes else "stays"
        y = top + n * row + gap / 2
        yield Box(x, y, BARS * scale.share(s.score), row - gap, ink, title, hollow=goes)
        if scale.breaks(s.score):
            yield Box(x + BARS * BROKEN_AT, y - gap / 2, BREAK, row, "paper")


def _layer_numbers(scores: Sequence[LayerScore], x: int, top: int, row: int) -> Iterator[Label]:
    yield Label(x, top - 8, "layer", "muted", anchor="end")
    every = next(step for step in (1, 2, 5, 10) if step * row >= 12)
    for n, s in enumerate(scores):
        if n % every == 0:
            yield Label(x, top + (n + 0.5) * row + 4, str(s.layer), anchor="end")


def _axis(scale: Scale, x: int, top: int, bottom: int) -> Iterator[Box | Label]:
    """With a gap and the highest score behind it, where that is cut."""
    yield Label(x, top - 8, "score", "muted")
    yield Box(x - 1, top, 1, bottom - top, "muted")
    shown = ticks(scale.end)
    for value in [*shown, scale.highest] if scale.cut else shown:
        at = x + BARS * scale.share(value)
        yield Box(at - 0.5, bottom, 1, 5, "muted")
        yield Label(at, bottom + 17, f"{value:.4g}", "muted", anchor="middle")
    if scale.cut:
        yield Label(x + BARS * BROKEN_AT + BREAK / 2, bottom + 17, "//", "muted", anchor="middle")


def ticks(highest: float) -> list[float]:
    """Round numbers from 0, three to six of them."""
    if highest < sys.float_info.min:
        return [0.0]
    power = 10.0 ** math.floor(math.log10(highest))
    step = next(s * power for s in (0.2, 0.5, 1.0, 2.0) if highest / (s * power) < 6)
    return [n * step for n in range(int(highest / step) + 1)]


def _marks(
    scores: Sequence[LayerScore], dropped: tuple[int, ...], x: int, top: int, row: int
) -> Iterator[Box | Label]:
    """A bracket for each run of rows that go."""
    rows = {n: None for n, s in enumerate(scores) if s.layer in dropped}
    starts = [b for a, b in pairwise([-2, *rows]) if b != a + 1]
    last = -math.inf
    for start in starts:
        stop = start
        while stop + 1 in rows:
            stop += 1
        y, height = top + start * row + 1, (stop - start + 1) * row - 2
        yield Box(x + 8, y, 3, height, "goes")
        middle = max(y + height / 2 + 4, last + 10)
        last = middle
        first, end = scores[start].layer, scores[stop].layer
        yield Label(x + 16, middle, f"{first}" if start == stop else f"{first}–{end}", "goes", bold=True)


def _heat_map(scores: Sequence[LayerScore], x: int, top: int, row: int, cell: int) -> Iterator[Box | Label]:
    norms = [h for s in scores for h in s.heads if h > 0]
    low, high = (min(norms), max(norms)) if norms else (1.0, 1.0)
    heads = max(len(s.heads) for s in scores)
    width, bottom = heads * cell, top + row * len(scores)
    every = next(step for step in (1, 2, 4, 8, 16, 32, 64) if step * cell >= 20)
    yield Label(x, top - 24, "norm of each query head", "muted")
    for n in range(0, heads, every):
        yield Label(x + (n + 0.5) * cell, top - 8, str(n), "muted", anchor="middle")
    for at in ((x - 1, top - 1, width + 2, 1), (x - 1, bottom, width + 2, 1)):
        yield Box(*at, ink="muted")
    for at in ((x - 1, top, 1, bottom - top), (x + width, top, 1, bottom - top)):
        yield Box(*at, ink="muted")
    for n, s in enumerate(scores):
        for h, norm in enumerate(s.heads):
            title = f"layer {s.layer}, head {h}: {norm:.4g}"
            yield Box(x + h * cell, top + n * row, cell, row, _heat(norm, low, high), title)
    yield Label(x, bottom + 42, f"{low:.4g}", "muted")
    yield Label(x + HEAT_STEPS * STRIP, bottom + 42, f"{high:.4g}", "muted", anchor="end")
    yield Label(x + HEAT_STEPS * STRIP + 10, bottom + 26, "logarithmic", "muted")
    for step in range(HEAT_STEPS):
        yield Box(x + step * STRIP, bottom + 16, STRIP, 12, step)


def _heat(norm: float, low: float, high: float) -> int:
    """The step of the logarithmic scale from `low` to `high`; 0 for a head that is zero."""
    if norm <= low or high <= low:
        return 0
    if math.isinf(high / low):
        share = (math.log(norm) - math.log(low)) / (math.log(high) - math.log(low))
        return min(int(HEAT_STEPS * share), HEAT_STEPS - 1)
    return min(int(HEAT_STEPS * math.log(norm / low) / math.log(high / low)), HEAT_STEPS - 1)
