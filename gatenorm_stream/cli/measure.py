"""`gatenorm-stream measure MODEL`"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated

import typer

from gatenorm_stream.cli.boundary import reported
from gatenorm_stream.cli.fold import table_width
from gatenorm_stream.cli.options import (
    ConnectionsOption,
    DebugOption,
    ModelName,
    QuietOption,
    ReadingOption,
    RevisionOption,
    TextOption,
    ThreadsOption,
    TokensOption,
)

DEFAULT_TOKENS = 256
"""Fewer than where one choice is made: some thirty are judged here."""

EXAMPLES = """
gatenorm-stream measure MODEL                        # what each choice would cost
gatenorm-stream measure MODEL --text notes.txt       # on your own text
gatenorm-stream measure MODEL --plot losses.svg
gatenorm-stream measure DIR --against MODEL          # what an output costs
"""


@reported
def measure(
    model: ModelName,
    against: Annotated[
        str | None, typer.Option(metavar="MODEL", help="Of an output: its source, measured beside it.")
    ] = None,
    text: TextOption = None,
    tokens: TokensOption = None,
    random: Annotated[
        int, typer.Option(metavar="N", min=0, max=100, help="Random choices beside them; 5 by default.")
    ] = 5,
    reading: ReadingOption = "per-head",
    json_: Annotated[bool, typer.Option("--json", help="Print JSON instead of the tables.")] = False,
    plot: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Draw the losses too, as .svg, .html or .png (which needs matplotlib)."),
    ] = None,
    revision: RevisionOption = None,
    connections: ConnectionsOption = None,
    threads: ThreadsOption = None,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Run MODEL, and show what the loss would be without some of its attention."""
    from gatenorm_stream.measuring.measure import measure_model
    from gatenorm_stream.report.measurement_table import measurement_lines
    from gatenorm_stream.report.progress import progress_meter
    from gatenorm_stream.sources.open import open_source

    if plot:
        from gatenorm_stream.report.plot import check_plot

        check_plot(plot)
    begun = time.monotonic()
    with progress_meter(quiet) as meter:
        source = open_source(model, revision=revision, connections=connections, note=meter.note)
        measured, sizes = measure_model(
            source,
            reading,
            text,
            tokens or DEFAULT_TOKENS,
            random,
            threads=threads,
            progress=meter.report,
        )
    if plot:
        from gatenorm_stream.report.loss_picture import loss_picture
        from gatenorm_stream.report.plot import plot as draw

        draw(loss_picture(measured), plot)
    if json_:
        typer.echo(json.dumps(measured.to_json(), indent=1, ensure_ascii=False))
    elif not quiet:
        for line in measurement_lines(measured, sizes, table_width(), time.monotonic() - begun):
            typer.echo(line)
        if plot:
            typer.echo(f"\nwrote {plot}")
