"""A line chart as SVG text, with logarithmic axes where asked for; nothing is needed to draw it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

WIDTH, HEIGHT, MARGIN = 640, 320, 56
COLOURS = ("#0b6", "#06c", "#c50", "#808", "#666")
Points = Sequence[tuple[float, float]]


def chart(title: str, across: str, up: str, lines: Mapping[str, Points], *, log_y: bool = True) -> str:
    """`lines` maps a name to its (x, y); x is logarithmic, y if `log_y`, else from 0."""
    xs = [math.log10(x) for points in lines.values() for x, _ in points]
    ys = [math.log10(y) if log_y else y for points in lines.values() for _, y in points]
    low_y = min(ys) if log_y else 0.0
    span_x, span_y = (max(xs) - min(xs)) or 1.0, (max(ys) * (1 if log_y else 1.15) - low_y) or 1.0

    def place(x: float, y: float) -> tuple[float, float]:
        at_x = MARGIN + (math.log10(x) - min(xs)) / span_x * (WIDTH - 2 * MARGIN)
        at_y = HEIGHT - MARGIN - ((math.log10(y) if log_y else y) - low_y) / span_y * (HEIGHT - 2 * MARGIN)
        return round(at_x, 1), round(at_y, 1)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
        'font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
        f'<text x="{MARGIN}" y="20" font-size="14">{title}</text>',
        f'<text x="{WIDTH - MARGIN}" y="{HEIGHT - 10}" text-anchor="end">{across}</text>',
        f'<text x="{MARGIN}" y="38" fill="#555">{up}</text>',
        f'<path d="M{MARGIN} {MARGIN}V{HEIGHT - MARGIN}H{WIDTH - MARGIN}" fill="none" stroke="#999"/>',
    ]
    for number, (name, points) in enumerate(lines.items()):
        colour = COLOURS[number % len(COLOURS)]
        at = [place(x, y) for x, y in points]
        path = " ".join(f"{x},{y}" for x, y in at)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        for (x, y), (_, value) in zip(at, points, strict=True):
            parts.append(f'<circle cx="{x}" cy="{y}" r="3" fill="{colour}"/>')
            parts.append(f'<text x="{x}" y="{y - 7}" text-anchor="middle" fill="{colour}">{value:.3g}</text>')
        parts.append(f'<text x="{WIDTH - MARGIN + 4}" y="{at[-1][1] + 14}" fill="{colour}">{name}</text>')
    for x in sorted({x for points in lines.values() for x, _ in points}):
        at_x, _ = place(x, next(iter(lines.values()))[0][1])
        parts.append(f'<text x="{at_x}" y="{HEIGHT - MARGIN + 16}" text-anchor="middle">{x:g}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"
