"""`gatenorm-stream compare A B`"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from gatenorm_stream.cli.boundary import reported
from gatenorm_stream.cli.fold import has_unicode, table_width
from gatenorm_stream.cli.options import (
    ConnectionsOption,
    DebugOption,
    DropOption,
    ProtectFirstOption,
    ProtectLastOption,
    QuietOption,
    ReadingOption,
    ShareOption,
    ThreadsOption,
    chosen,
)
from gatenorm_stream.cli.say import say, say_json
from gatenorm_stream.cli.usage import UsageProblem
from gatenorm_stream.scoring.readings import Reading

if TYPE_CHECKING:
    from gatenorm_stream.report.progress import Meter
    from gatenorm_stream.scoring.scores import LayerScore

EXAMPLES = """
gatenorm-stream compare A B
gatenorm-stream compare A --other-reading stored    # two readings of one model
"""


@reported
def compare(
    a: Annotated[
        str, typer.Argument(metavar="A", help="A model: a directory, a GGUF file, or org/name[@revision].")
    ],
    b: Annotated[str | None, typer.Argument(metavar="B", help="Another; without it, two readings of A.")] = None,
    reading: ReadingOption = "per-head",
    other_reading: Annotated[
        Reading | None, typer.Option(metavar="READING", help="Of B; the same as --reading by default.")
    ] = None,
    drop: DropOption = None,
    share: ShareOption = None,
    protect_first: ProtectFirstOption = None,
    protect_last: ProtectLastOption = 0,
    json_: Annotated[bool, typer.Option("--json", help="Print JSON instead of the table.")] = False,
    connections: ConnectionsOption = None,
    threads: ThreadsOption = None,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Show two models, or two readings of one, side by side, and how far their rankings agree."""
    choice = chosen(drop, share, None, None, protect_first, protect_last)
    if b is None and other_reading in (None, reading):
        raise UsageProblem("give a second model, or --other-reading to compare two readings of one")
    readings = reading, other_reading or reading
    from gatenorm_stream.report.progress import progress_meter

    with progress_meter(quiet) as meter:
        (first, scores_a), (second, scores_b) = (
            _scored(model, kind, connections, threads, meter)
            for model, kind in zip((a, b or a), readings, strict=True)
        )
    from gatenorm_stream.report.comparison_table import comparison_json, comparison_table, verdict
    from gatenorm_stream.scoring.comparison import compare as compare_scores

    comparison = compare_scores(scores_a, scores_b, choice)
    if json_:
        say_json(comparison_json(comparison, (first, second), readings))
    elif not quiet:
        names = f"{first}, {readings[0]}", f"{second}, {readings[1]}"
        say(comparison_table(comparison, names, width=table_width(120), unicode=has_unicode()))
        say()
        for line in verdict(comparison):
            say(line)


def _scored(
    model: str, reading: Reading, connections: int | None, threads: int | None, meter: Meter
) -> tuple[str, tuple[LayerScore, ...]]:
    from gatenorm_stream.families.open import open_model
    from gatenorm_stream.scoring.score import scored
    from gatenorm_stream.sources.open import open_source

    source = open_source(model, connections=connections, note=meter.note)
    with open_model(source) as read:
        return source.title, scored(read, reading, threads=threads, progress=meter.report)
