"""Sizes before and after, as rows of a table."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias

from gatenorm_stream.report.quantities import si

WIDTH = 51

Row: TypeAlias = tuple[str, str, str, str]
"""What, before, after, change."""


def change(what: str, before: int, after: int, unit: str = "") -> Row:
    share = f"{100 * (after - before) / before:+.1f} %" if after != before else "0 %"
    return what, si(before, unit), si(after, unit), share


def compared_sizes(
    attention: tuple[int, int], parameters: tuple[int, int], weights: tuple[int, int], cache: tuple[int, int]
) -> list[Row]:
    """Each before and after; `cache` in bytes of a token, at 16 bits a number."""
    return [
        change("attention sublayers", *attention),
        change("parameters", *parameters),
        change("weights", *weights, "B"),
        change("KV cache, 1000 tokens", 1000 * cache[0], 1000 * cache[1], "B"),
    ]


def table(rows: Iterable[Row], width: int) -> str:
    """Columns, or where `width` has no room for them, two lines a row."""
    if width < WIDTH:
        return "\n".join(f"{what}\n  {before} to {after}, {share}" for what, before, after, share in rows)
    return "\n".join(f"{a:<22}{b:>10}{c:>10}{d:>9}".rstrip() for a, b, c, d in [("", "before", "after", ""), *rows])
