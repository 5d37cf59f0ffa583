"""The score table in a terminal: rank, layer, score, a bar, and what would go."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from gatenorm_stream.scoring.scores import LayerScore
from gatenorm_stream.scoring.selection import rank

EIGHTHS = " ▏▎▍▌▋▊▉"
MARK = "drop"
NARROWEST = 32
"""Columns that are needed without bars."""


def score_table(
    scores: Sequence[LayerScore],
    dropped: tuple[int, ...],
    *,
    what: str = "score",
    width: int = 80,
    unicode: bool = True,
) -> str:
    """What goes first is first, at most `width` columns (and at least 32, where bars have no room)."""
    return "\n".join(_lines(scores, dropped, what, max(width, NARROWEST), unicode))


def _lines(
    scores: Sequence[LayerScore], dropped: tuple[int, ...], what: str, width: int, unicode: bool
) -> Iterator[str]:
    head = f"{'rank':>4}  {'layer':>5}  {what:>11}  "
    room = width - len(head) - len(MARK) - 2
    highest = max(s.score for s in scores) or 1.0
    yield head.rstrip()
    for place, s in enumerate(rank(scores), start=1):
        drawn = bar(room * s.score / highest, unicode)
        mark = f"  {MARK}" if s.layer in dropped else ""
        line = f"{place:>4}  {s.layer:>5}  {s.score:>#11.5g}  {drawn:<{room}}{mark}"
        yield line.rstrip()


def bar(cells: float, unicode: bool) -> str:
    """A bar of that many columns: to an eighth of one, or whole ones in ASCII."""
    if not unicode:
        return "#" * round(cells)
    whole, part = divmod(round(cells * 8), 8)
    return "█" * whole + EIGHTHS[part].strip()
