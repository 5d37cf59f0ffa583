"""A line chart as SVG text, light and dark, with logarithmic axes where asked for; nothing is needed to draw it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from gatenorm_stream.report.theme import DARK, LIGHT, PAPER

WIDTH, HEIGHT = 640, 340
LEFT, RIGHT, TOP, BOTTOM = 56, 110, 64, 52
LINE = 15
COLOURS = (("#0072b2", "#56b4e9"), ("#c04a00", "#ff9a52"), ("#00805c", "#3fcf9f"), ("#9b3f7d", "#e596c5"))
DASHES = ("", "7 4", "2 3", "9 3 2 3")
Points = Sequence[tuple[float, float]]


def chart(title: str, across: str, up: str, lines: Mapping[str, Points], *, log_y: bool = True) -> str:
    """`lines` maps a name to its (x, y); x is logarithmic, y if `log_y`, else from 0. At most four lines."""
    xs = sorted({x for points in lines.values() for x, _ in points})
    ys = [y for points in lines.values() for _, y in points]
    ticks = _decades(min(ys), max(ys)) if log_y else _steps(max(ys))

    def at_x(x: float) -> float:
        span = math.log(xs[-1] / xs[0]) or 1.0
        return round(LEFT + math.log(x / xs[0]) / span * (WIDTH - LEFT - RIGHT), 1)

    def at_y(y: float) -> float:
        part = math.log(y / ticks[0]) / math.log(ticks[-1] / ticks[0]) if log_y else y / ticks[-1]
        return round(HEIGHT - BOTTOM - part * (HEIGHT - TOP - BOTTOM), 1)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" '
        f'viewBox="0 0 {WIDTH} {HEIGHT}" font-family="system-ui, sans-serif" font-size="12" role="img">',
        f"<title>{title}</title>",
        f"<style>{_rules(0)} @media screen and (prefers-color-scheme: dark) {{ {_rules(1)} }}</style>",
        f'<rect class="{PAPER}" width="{WIDTH}" height="{HEIGHT}"/>',
        f'<text class="text" x="16" y="26" font-size="15" font-weight="bold">{title}</text>',
        f'<text class="muted" x="16" y="46">{up}</text>',
        f'<text class="muted" x="{WIDTH - RIGHT}" y="{HEIGHT - 12}" text-anchor="end">{across}</text>',
    ]
    for y in ticks:
        parts.append(f'<path class="grid" d="M{LEFT} {at_y(y)}H{WIDTH - RIGHT}"/>')
        parts.append(f'<text class="muted" x="{LEFT - 8}" y="{at_y(y) + 4}" text-anchor="end">{y:g}</text>')
    for x in xs:
        parts.append(
            f'<text class="muted" x="{at_x(x)}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{x:.3g}</text>'
        )
    ends = _apart({name: at_y(points[-1][1]) for name, points in lines.items() if points[-1][0] == xs[-1]})
    for number, (name, points) in enumerate(lines.items()):
        path = " ".join(f"{at_x(x)},{at_y(y)}" for x, y in points)
        dash = f' stroke-dasharray="{DASHES[number]}"' if DASHES[number] else ""
        parts.append(f'<polyline class="l{number}" points="{path}" fill="none" stroke-width="2"{dash}/>')
        parts += (f'<circle class="f{number}" cx="{at_x(x)}" cy="{at_y(y)}" r="3"/>' for x, y in points)
        x, y = at_x(points[-1][0]), at_y(points[-1][1])
        place = f'x="{x + 9}" y="{ends[name] + 4}"' if name in ends else f'x="{x}" y="{y - 9}" text-anchor="middle"'
        parts.append(f'<text class="f{number}" {place}>{name}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def _rules(dark: int) -> str:
    theme = (LIGHT, DARK)[dark]
    inks = "".join(f".{name}{{fill:{theme[name]}}}" for name in (PAPER, "text", "muted"))
    lines = "".join(f".l{n}{{stroke:{c[dark]}}}.f{n}{{fill:{c[dark]}}}" for n, c in enumerate(COLOURS))
    return f"{inks}.grid{{stroke:{theme['muted']};stroke-opacity:.25}}{lines}"


def _steps(highest: float) -> list[float]:
    """Round numbers from 0 up to the first that is not below `highest`."""
    power = 10.0 ** math.floor(math.log10(highest))
    step = next(s * power for s in (0.2, 0.5, 1.0, 2.0) if highest / (s * power) <= 5)
    return [n * step for n in range(math.ceil(highest / step) + 1)]


def _decades(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten, from the last not above `low` to the first not below `high`."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    marks = [float(f"{m}e{p}") for p in powers for m in (1, 2, 5)]
    first = max(n for n, y in enumerate(marks) if y <= low)
    last = min(n for n, y in enumerate(marks) if y >= high)
    return marks[first : last + 1]


def _apart(places: Mapping[str, float]) -> dict[str, float]:
    """Moved down where two would overlap."""
    moved: dict[str, float] = {}
    last = -math.inf
    for name, y in sorted(places.items(), key=lambda item: item[1]):
        last = moved[name] = max(y, last + LINE)
    return moved
