"""`gatenorm-stream measure MODEL`"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from gatenorm_stream.cli.boundary import reported
from gatenorm_stream.cli.fold import folded, table_width
from gatenorm_stream.cli.options import (
    TOKENS,
    ConnectionsOption,
    DebugOption,
    ForcePictureOption,
    ModelName,
    QuietOption,
    ReadingOption,
    RevisionOption,
    TextOption,
    ThreadsOption,
)
from gatenorm_stream.cli.say import say, say_json
from gatenorm_stream.cli.usage import UsageProblem

if TYPE_CHECKING:
    from gatenorm_stream.measuring.measured_output import MeasuredOutput
    from gatenorm_stream.measuring.measurement import Measurement

DEFAULT_TOKENS = 256
"""Fewer than where one choice is made: some thirty are judged here."""

EXAMPLES = """
gatenorm-stream measure MODEL                     # what choices would cost
gatenorm-stream measure MODEL --text notes.txt    # on your own text
gatenorm-stream measure MODEL --by influence      # only its choices
gatenorm-stream measure MODEL --plot losses.svg
gatenorm-stream measure DIR --against MODEL       # what an output costs
"""


@reported
def measure(
    model: ModelName,
    against: Annotated[
        str | None, typer.Option(metavar="MODEL", help="Of an output: its source, measured beside it.")
    ] = None,
    text: TextOption = None,
    tokens: Annotated[int | None, TOKENS(show_default=str(DEFAULT_TOKENS))] = None,
    random: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=0,
            max=100,
            help="Random choices beside them at every number.",
            show_default="5, of a large model at one number",
        ),
    ] = None,
    by: Annotated[
        Literal["gate-norm", "influence"] | None,
        typer.Option(metavar="HOW", help="Only choices by this: gate-norm or influence.", show_default="both"),
    ] = None,
    reading: ReadingOption = "per-head",
    json_: Annotated[bool, typer.Option("--json", help="Print JSON instead of the tables.")] = False,
    plot: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Draw the losses too, as .svg, .html or .png (which needs matplotlib)."),
    ] = None,
    force: ForcePictureOption = False,
    revision: RevisionOption = None,
    connections: ConnectionsOption = None,
    threads: ThreadsOption = None,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Run MODEL, and show what the loss would be without some of its attention."""
    from gatenorm_stream.families.open import open_model
    from gatenorm_stream.report.measurement_table import measurement_lines, output_lines
    from gatenorm_stream.report.progress import progress_meter
    from gatenorm_stream.sources.open import open_source

    if plot:
        from gatenorm_stream.report.plot import check_plot

        check_plot(plot, force=force)
    begun, count = time.monotonic(), tokens or DEFAULT_TOKENS
    with progress_meter(quiet) as meter:
        source = open_source(model, revision=revision, connections=connections, note=meter.note)
        with open_model(source, pruned=True) as read:
            found: Measurement | MeasuredOutput
            if against or read.pruned:
                if plot:
                    raise UsageProblem(
                        "--plot draws what choices cost, and this is the output of one; leave it out"
                    )
                from gatenorm_stream.measuring.measured_output import measure_output

                other = open_source(against, connections=connections, note=meter.note) if against else None
                found = measure_output(read, other, text, count, threads=threads, progress=meter.report)
                lines = [folded(line) for line in output_lines(found)]
            else:
                from gatenorm_stream.measuring.measure import measure_model

                found, saved = measure_model(
                    read, reading, text, count, random, by=by, threads=threads, progress=meter.report
                )
                seconds = time.monotonic() - begun
                lines = [folded(n) for n in measurement_lines(found, saved, table_width(), seconds)]
    if plot:
        _draw(found, plot, force)
        lines += ["", f"wrote {plot}"]
    if json_:
        say_json(found.to_json())
    elif not quiet:
        say("\n".join(lines))


def _draw(found: Measurement | MeasuredOutput, plot: Path, force: bool) -> None:
    from gatenorm_stream.measuring.measurement import Measurement
    from gatenorm_stream.report.loss_picture import loss_picture
    from gatenorm_stream.report.plot import plot as draw

    assert isinstance(found, Measurement)
    draw(loss_picture(found), plot, force=force)
