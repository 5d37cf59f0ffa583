"""How the loss rises with the number of sublayers that go, as a picture: a line for each criterion."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from statistics import mean
from typing import TypeAlias

from gatenorm_stream.measuring.measurement import By, Measurement
from gatenorm_stream.report.picture import Box, Ink, Label, Line, Picture, heading, printable, ticks

LEFT, TOP, WIDTH, HEIGHT, BELOW, RIGHT = 56, 84, 400, 260, 64, 178
CURVES: tuple[tuple[By, str, Ink], ...] = (
    ("gate-norm", "Gate-Norm", "goes"),
    ("influence", "influence", "stays"),
    ("random", "at random", "muted"),
)
DOT = 5

Place: TypeAlias = Callable[[tuple[int, float]], tuple[float, float]]


def loss_picture(measured: Measurement) -> Picture:
    """Dashed where nothing stands in the place of what is gone, solid where a constant does."""
    curves = [
        (f"{name}, {'constants' if compensated else 'plain'}", ink, compensated, _points(measured, by, compensated))
        for by, name, ink in CURVES
        for compensated in (False, True)
    ]
    curves = [curve for curve in curves if curve[-1]]
    rises = [rise for *_, points in curves for _, rise in points]
    low, high = min(0.0, *rises), max(0.01, *rises)
    last = max(measured.counts, default=1)

    def place(point: tuple[int, float]) -> tuple[float, float]:
        return LEFT + WIDTH * point[0] / last, TOP + HEIGHT * (high - point[1]) / (high - low)

    title = f"Loss of {measured.model} with attention gone"
    items: list[Box | Label] = [*heading(title, _line(measured), LEFT + WIDTH + RIGHT)]
    items += _axes(measured.counts, ticks(high), place)
    lines = []
    legend = TOP + 8
    for name, ink, compensated, points in curves:
        placed = tuple(map(place, [(0, 0.0), *points]))
        lines.append(Line(placed, ink, dashed=not compensated))
        items += [Box(x - DOT / 2, y - DOT / 2, DOT, DOT, ink) for x, y in placed[1:]]
        x = LEFT + WIDTH + 20
        lines.append(Line(((x, legend), (x + 26, legend)), ink, dashed=not compensated))
        items.append(Label(x + 34, legend + 4, name))
        legend += 22
    boxes = tuple(i for i in items if isinstance(i, Box))
    labels = tuple(i for i in items if isinstance(i, Label))
    return Picture(printable(title), LEFT + WIDTH + RIGHT, TOP + HEIGHT + BELOW, boxes, labels, tuple(lines))


def _line(measured: Measurement) -> str:
    return f"rise over {measured.loss:.3f} nats a token, on {measured.tokens} tokens of {measured.text}"


def _points(measured: Measurement, by: By, compensated: bool) -> list[tuple[int, float]]:
    found = ((count, measured.of(by, count, compensated)) for count in measured.counts)
    return [(count, mean(c.rise for c in choices)) for count, choices in found if choices]


def _axes(counts: Sequence[int], rises: Sequence[float], place: Place) -> Iterator[Box | Label]:
    bottom = TOP + HEIGHT
    yield Box(LEFT - 1, TOP, 1, HEIGHT, "muted")
    for rise in rises:
        _, y = place((0, rise))
        yield Box(LEFT - 6, y - 0.5, 5, 1, "muted")
        yield Label(LEFT - 10, y + 4, f"{rise:.3g}", "muted", anchor="end")
    _, zero = place((0, 0.0))
    yield Box(LEFT - 1, zero - 0.5, WIDTH, 1, "muted")
    for count in counts:
        x, _ = place((count, 0.0))
        yield Box(x - 0.5, bottom, 1, 5, "muted")
        yield Label(x, bottom + 18, str(count), "muted", anchor="middle")
    yield Label(LEFT + WIDTH / 2, bottom + 42, "attention sublayers gone", "muted", 12, anchor="middle")
