"""`gatenorm-stream compare A B`"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gatenorm_stream.cli.boundary import reported
from gatenorm_stream.cli.fold import folded, has_unicode, table_width, with_command
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
from gatenorm_stream.cli.started_as import next_command
from gatenorm_stream.cli.usage import UsageProblem
from gatenorm_stream.scoring.readings import Reading

if TYPE_CHECKING:
    from gatenorm_stream.families.model import Model
    from gatenorm_stream.planning.plan import Plan
    from gatenorm_stream.report.before_after import BeforeAfter
    from gatenorm_stream.report.progress import Meter

EXAMPLES = """
gatenorm-stream compare A B
gatenorm-stream compare MODEL DIR    # before and after
gatenorm-stream compare A --other-reading stored    # two readings of one model
"""


@reported
def compare(
    a: Annotated[
        str, typer.Argument(metavar="A", help="A model: a directory, a GGUF file, or org/name[@revision].")
    ],
    b: Annotated[
        str | None, typer.Argument(metavar="B", help="Another, or an output of A; without it, two readings of A.")
    ] = None,
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
    """Show two models, or two readings of one, side by side, and how far their rankings agree.

    Of a model and its output, show both sizes instead: layers, parameters, weights, KV cache, the loss if measured.
    """
    from gatenorm_stream.scoring.selection import Choice

    choice = chosen(drop, share, None, None, protect_first, protect_last)
    if b is None and other_reading in (None, reading):
        raise UsageProblem("give a second model, or --other-reading to compare two readings of one")
    readings = reading, other_reading or reading
    from gatenorm_stream.report.progress import progress_meter
    from gatenorm_stream.scoring.score import scored

    with progress_meter(quiet) as meter, ExitStack() as stack:
        models = [stack.enter_context(_open_named(name, connections, meter)) for name in ((a, b) if b else (a,))]
        if pair := _before_after(models):
            if choice != Choice() or other_reading:
                raise UsageProblem("a model and its output are compared by sizes; leave out what chooses or scores")
            with meter.pause():
                _show(pair, a if pair.before.title == models[0].checkpoint.source.title else str(b), json_, quiet)
            return
        first, second = models[0], models[-1]
        scores_a, scores_b = (
            scored(model, kind, threads=threads, progress=meter.report)
            for model, kind in zip((first, second), readings, strict=True)
        )
    titles = first.checkpoint.source.title, second.checkpoint.source.title
    from gatenorm_stream.report.comparison_table import comparison_json, comparison_table, verdict
    from gatenorm_stream.scoring.comparison import compare as compare_scores

    comparison = compare_scores(scores_a, scores_b, choice)
    if json_:
        say_json(comparison_json(comparison, titles, readings))
    elif not quiet:
        names = f"{titles[0]}, {readings[0]}", f"{titles[1]}, {readings[1]}"
        say(comparison_table(comparison, names, width=table_width(120), unicode=has_unicode()))
        say()
        for line in verdict(comparison):
            say(folded(line))


@contextmanager
def _open_named(name: str, connections: int | None, meter: Meter) -> Iterator[Model]:
    from gatenorm_stream.families.open import open_model
    from gatenorm_stream.sources.open import open_source

    with open_model(open_source(name, connections=connections, note=meter.note), pruned=True) as model:
        yield model


def _before_after(models: Sequence[Model]) -> BeforeAfter | None:
    """Of a model and its output; None for two originals. Raises ComparisonError for other pairs with an output."""
    from gatenorm_stream.errors import ComparisonError
    from gatenorm_stream.report.before_after import BeforeAfter, side

    plans = [_plan(model) for model in models]
    outputs = [bool(model.pruned or plan) for model, plan in zip(models, plans, strict=True)]
    if len(models) == 2 and outputs[0] != outputs[1]:
        before, after = models if outputs[1] else models[::-1]
        pair = BeforeAfter(side(before), side(after), plans[outputs.index(True)])
        pair.check()
        return pair
    if lost := next((model for model in models if model.pruned), None):
        raise ComparisonError(
            f"{lost.checkpoint.source.title} is an output of gatenorm-stream; compare it with its source"
        )
    return None


def _plan(model: Model) -> Plan | None:
    """What the record of a local output says; None where there is none."""
    from gatenorm_stream.writing.record import kind_at, read_record, record_path

    out = Path(model.checkpoint.source.title)
    return read_record(out)[0] if out.exists() and record_path(out, kind_at(out)).is_file() else None


def _show(pair: BeforeAfter, source: str, as_json: bool, quiet: bool) -> None:
    from gatenorm_stream.report.before_after import before_after_json, before_after_table, gone_lines

    if as_json:
        say_json(before_after_json(pair))
        return
    if quiet:
        return
    say(folded(f"{pair.before.title}, and its output {pair.after.title}") + "\n")
    say(before_after_table(pair, table_width()) + "\n")
    for line in gone_lines(pair):
        say(folded(line))
    if not pair.measured:
        measure = next_command("measure", pair.after.title, "--against", source)
        say(with_command("loss not measured:", measure))
