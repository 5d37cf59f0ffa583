"""Two sets of scores side by side."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from gatenorm_stream.report.quantities import layer_list
from gatenorm_stream.report.scale import scale_of
from gatenorm_stream.report.score_table import MARK, bar
from gatenorm_stream.scoring.comparison import Comparison

Names = tuple[str, str]
GAP = 2
WITH_SCORES = 59
"""Columns in which the scores find room; in fewer, ranks and bars alone."""


def comparison_table(comparison: Comparison, names: Names, *, width: int = 80, unicode: bool = True) -> str:
    """A line for each layer, at most `width` columns (and at least 35), the names shortened to fit."""
    return "\n".join(_draw(comparison, names, width, unicode))


def comparison_json(comparison: Comparison, names: Names, readings: Names) -> dict[str, Any]:
    sides = zip(names, readings, comparison.dropped, strict=True)
    rows = zip(*comparison.scores, *comparison.ranks, strict=True)
    return {
        "sides": [{"model": m, "reading": r, "dropped": list(dropped)} for m, r, dropped in sides],
        "layers": [{"layer": a.layer, "scores": [a.score, b.score], "ranks": [x, y]} for a, b, x, y in rows],
        "rank_correlation": comparison.correlation,
        "dropped_by_both": list(comparison.common),
    }


def verdict(comparison: Comparison) -> Iterator[str]:
    if comparison.correlation is None:
        yield "no rank correlation: all scores of one side are equal"
    else:
        yield f"rank correlation (Spearman) {comparison.correlation:+.3f}"
    first, second = map(len, comparison.dropped)
    common = f": {layer_list(comparison.common)}" if comparison.common else ""
    number = f"{first}" if first == second else f"{first} and {second}"
    yield f"of the {number} that would go, {len(comparison.common)} in common{common}"


def _draw(comparison: Comparison, names: Names, width: int, unicode: bool) -> Iterator[str]:
    score = 11 + GAP if width >= WITH_SCORES else 0
    beside = 4 + score + GAP + 1 + len(MARK)
    room = max((width - 5 - 2 * GAP) // 2 - beside, 1)
    side = beside + room
    yield (" " * (5 + GAP) + (" " * GAP).join(f"{_short(name, side):<{side}}" for name in names)).rstrip()
    head = f"{'rank':>4}{'score' if score else '':>{score}}{'':{side - 4 - score}}"
    yield (f"{'layer':>5}" + " " * GAP + (" " * GAP).join((head, head))).rstrip()
    scales = [scale_of([s.score for s in scores]) for scores in comparison.scores]
    for n, pair in enumerate(zip(*comparison.scores, strict=True)):
        cells = []
        for which, s in enumerate(pair):
            rank = f"{comparison.ranks[which][n]:g}"
            number = f"{s.score:>#{score}.5g}" if score else ""
            drawn = bar(s.score, scales[which], room, unicode)
            mark = MARK if s.layer in comparison.dropped[which] else ""
            cells.append(f"{rank:>4}{number}{'':{GAP}}{drawn:<{room}} {mark:<{len(MARK)}}")
        yield (f"{pair[0].layer:>5}" + " " * GAP + (" " * GAP).join(cells)).rstrip()


def _short(name: str, width: int) -> str:
    """The end of a name says most."""
    return name if len(name) <= width else f"..{name[2 - width :]}"
