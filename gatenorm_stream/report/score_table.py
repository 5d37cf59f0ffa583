"""The score table in a terminal: rank, layer, score, a bar, and what would go."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from gatenorm_stream.report.scale import Scale, scale_of
from gatenorm_stream.scoring.scores import LayerScore
from gatenorm_stream.scoring.selection import rank

EIGHTHS = " ▏▎▍▌▋▊▉"
MARK = "drop"
BROKEN = {True: "╱╱", False: "//"}
"""In a bar that is longer than drawn: with Unicode, and in ASCII."""
SHORTEST_BROKEN = 5
GOES, PLAIN = "\x1b[33m", "\x1b[0m"
NARROWEST = 32
"""Columns that are needed without bars."""


def score_table(
    scores: Sequence[LayerScore],
    dropped: tuple[int, ...],
    *,
    what: str = "score",
    width: int = 80,
    unicode: bool = True,
    colour: bool = False,
) -> str:
    """What goes first is first, at most `width` columns (and at least 32, where bars have no room). With `colour`,
    rows of layers that go are in a terminal's yellow.
    """
    return "\n".join(_draw(scores, dropped, what, max(width, NARROWEST), unicode, colour))


def _draw(
    scores: Sequence[LayerScore], dropped: tuple[int, ...], what: str, width: int, unicode: bool, colour: bool
) -> Iterator[str]:
    head = f"{'rank':>4}  {'layer':>5}  {what:>11}  "
    room = width - len(head) - len(MARK) - 2
    scale = scale_of([s.score for s in scores])
    legend = f"{BROKEN[unicode]} cut short"
    yield (head + legend if scale.cut and len(legend) <= room else head).rstrip()
    for number, s in enumerate(rank(scores), start=1):
        drawn = bar(s.score, scale, room, unicode)
        mark = f"  {MARK}" if s.layer in dropped else ""
        line = f"{number:>4}  {s.layer:>5}  {s.score:>#11.5g}  {drawn:<{room}}{mark}"
        yield f"{GOES}{line.rstrip()}{PLAIN}" if mark and colour else line.rstrip()


def bar(score: float, scale: Scale, room: int, unicode: bool) -> str:
    """A bar in at most `room` columns, broken where the score lies beyond the end of the axis."""
    mark = BROKEN[unicode]
    if not scale.breaks(score) or room < SHORTEST_BROKEN:
        return _solid(room * scale.share(score), unicode)
    end = max(1, room // 12)
    return _solid(room - end - len(mark), unicode) + mark + _solid(end, unicode)


def _solid(cells: float, unicode: bool) -> str:
    """To an eighth of a column, or whole ones in ASCII."""
    if not unicode:
        return "#" * round(cells)
    whole, part = divmod(round(cells * 8), 8)
    return "█" * whole + EIGHTHS[part].strip()
