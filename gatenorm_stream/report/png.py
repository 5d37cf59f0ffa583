"""Pictures as PNG, drawn by matplotlib (the extra `plot`), in light colours on white."""

from __future__ import annotations

from io import BytesIO

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure

from gatenorm_stream.report.picture import HEAT_STEPS, Box, Ink, Picture
from gatenorm_stream.report.theme import LIGHT, PAPER, heat_colours

PIXELS_PER_INCH = 96
SHARPNESS = 2
"""Pixels of the file for each pixel of the picture."""

ANCHORS = {"start": "left", "middle": "center", "end": "right"}


def png(picture: Picture) -> bytes:
    heat = heat_colours(HEAT_STEPS)

    def colour(ink: Ink) -> str:
        return heat[ink] if isinstance(ink, int) else LIGHT[ink]

    size = (picture.width / PIXELS_PER_INCH, picture.height / PIXELS_PER_INCH)
    figure = Figure(figsize=size, dpi=PIXELS_PER_INCH * SHARPNESS, facecolor=LIGHT[PAPER])
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, picture.width), ylim=(picture.height, 0))
    axes.set_axis_off()
    pixel = 72 / PIXELS_PER_INCH
    for hollow in (False, True):
        boxes = [b for b in picture.boxes if b.hollow is hollow]
        colours = [colour(b.ink) for b in boxes]
        edges, fills = (colours, "none") if hollow else ("none", colours)
        axes.add_collection(
            PolyCollection(
                [_corners(b) for b in boxes],
                facecolors=fills,
                edgecolors=edges,
                linewidths=pixel,
                antialiased=hollow,
            ),
            autolim=False,
        )
    for line in picture.lines:
        xs, ys = zip(*line.points, strict=True)
        dashes = (0, (5, 4)) if line.dashed else "solid"
        axes.plot(xs, ys, color=colour(line.ink), linewidth=2 * pixel, linestyle=dashes)
    for label in picture.labels:
        axes.text(
            label.x,
            label.y,
            label.text,
            color=colour(label.ink),
            size=label.size * pixel,
            ha=ANCHORS[label.anchor],
            va="baseline",
            weight="bold" if label.bold else "normal",
            parse_math=False,
        )
    file = BytesIO()
    canvas.print_png(file)  # type: ignore[no-untyped-call]
    return file.getvalue()


def _corners(box: Box) -> list[tuple[float, float]]:
    inset = 0.5 if box.hollow else 0.0
    left, right = box.x + inset, box.x + max(box.width - inset, inset)
    top, bottom = box.y + inset, box.y + max(box.height - inset, inset)
    return [(left, top), (right, top), (right, bottom), (left, bottom)]
