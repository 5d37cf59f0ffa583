"""Pictures as SVG, and as one HTML page that tells what the pointer rests on. Both follow light and dark mode."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape

from gatenorm_stream.report.picture import HEAT_STEPS, Box, Ink, Label, Line, Picture
from gatenorm_stream.report.theme import DARK, LIGHT, PAPER, heat_colours

LEGIBLE = 640
"""Pixels below which a picture is not shrunk on a narrow screen, but scrolls: its text would be too small."""
PAGE = """\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>
body {{ margin: 0; background: {light} }}
svg {{ display: block; max-width: 100%; min-width: {least}px; height: auto; margin: auto }}
@media screen and (prefers-color-scheme: dark) {{ body {{ background: {dark} }} }}
</style>
{svg}</html>
"""


def svg(picture: Picture) -> str:
    """Small: boxes of one colour are one path."""
    return "\n".join(_svg(picture, _paths(picture.boxes))) + "\n"


def html(picture: Picture) -> str:
    """One file that needs no other; each bar and each cell has a title."""
    drawing = "\n".join(_svg(picture, map(_titled, picture.boxes))) + "\n"
    return PAGE.format(
        least=min(picture.width, LEGIBLE),
        title=escape(picture.title),
        light=LIGHT[PAPER],
        dark=DARK[PAPER],
        svg=drawing,
    )


def _svg(picture: Picture, shapes: Iterator[str]) -> Iterator[str]:
    size = f'width="{picture.width}" height="{picture.height}" viewBox="0 0 {picture.width} {picture.height}"'
    font = 'font-family="system-ui, sans-serif" role="img"'
    yield f'<svg xmlns="http://www.w3.org/2000/svg" {size} {font}>'
    yield f"<title>{escape(picture.title)}</title>"
    yield f"<style>\n{_style(bool(picture.lines))}\n</style>"
    yield f'<rect class="{PAPER}" width="100%" height="100%"/>'
    yield '<g shape-rendering="crispEdges">'
    yield from shapes
    yield "</g>"
    yield from map(_line, picture.lines)
    yield from map(_text, picture.labels)
    yield "</svg>"


def _style(lines: bool) -> str:
    heat = "".join(f".h{n}{{fill:{colour}}}" for n, colour in enumerate(heat_colours(HEAT_STEPS)))
    dark = _rules(DARK, lines)
    return f"{_rules(LIGHT, lines)}\n{heat}\n@media screen and (prefers-color-scheme: dark) {{ {dark} }}"


def _rules(theme: Mapping[str, str], lines: bool) -> str:
    fills = "".join(f".{name}{{fill:{colour}}}" for name, colour in theme.items())
    strokes = (
        "".join(f".l-{name}{{fill:none;stroke:{colour};stroke-width:2}}" for name, colour in theme.items())
        if lines
        else ""
    )
    return f"{fills}{strokes}.hollow{{fill:none;stroke:{theme['goes']}}}"


def _paths(boxes: tuple[Box, ...]) -> Iterator[str]:
    alike: dict[str, list[Box]] = {}
    for box in boxes:
        alike.setdefault(_class(box), []).append(box)
    for name, group in alike.items():
        yield f'<path class="{name}" d="{"".join(map(_outline, group))}"/>'


def _titled(box: Box) -> str:
    title = f"<title>{escape(box.title)}</title>" if box.title else ""
    return f'<path class="{_class(box)}" pointer-events="all" d="{_outline(box)}">{title}</path>'


def _outline(box: Box) -> str:
    inset = 0.5 if box.hollow else 0.0
    x, y = box.x + inset, box.y + inset
    width, height = max(box.width - 2 * inset, 0), max(box.height - 2 * inset, 0)
    return f"M{_short(x)} {_short(y)}h{_short(width)}v{_short(height)}h{_short(-width)}z"


def _line(line: Line) -> str:
    points = " ".join(f"{_short(x)},{_short(y)}" for x, y in line.points)
    dashes = ' stroke-dasharray="5 4"' if line.dashed else ""
    return f'<polyline class="l-{_ink(line.ink)}" points="{points}"{dashes}/>'


def _class(box: Box) -> str:
    return "hollow" if box.hollow else _ink(box.ink)


def _ink(ink: Ink) -> str:
    return f"h{ink}" if isinstance(ink, int) else ink


def _text(label: Label) -> str:
    bold = ' font-weight="bold"' if label.bold else ""
    anchor = f' text-anchor="{label.anchor}"' if label.anchor != "start" else ""
    at = f'x="{_short(label.x)}" y="{_short(label.y)}" font-size="{label.size}"'
    return f'<text class="{_ink(label.ink)}" {at}{anchor}{bold}>{escape(label.text)}</text>'


def _short(number: float) -> str:
    return f"{number:.1f}".removesuffix(".0")
