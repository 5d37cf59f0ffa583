"""`gatenorm-stream score MODEL`"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gatenorm_stream.cli.boundary import reported
from gatenorm_stream.cli.fold import folded
from gatenorm_stream.cli.options import (
    ConnectionsOption,
    DaskOption,
    DebugOption,
    DropOption,
    ModelName,
    ProtectFirstOption,
    ProtectLastOption,
    QuietOption,
    ReadingOption,
    RevisionOption,
    ShareOption,
    ThreadsOption,
    chosen,
)
from gatenorm_stream.cli.shown_scores import show_scores

if TYPE_CHECKING:
    from gatenorm_stream.families.model import Model
    from gatenorm_stream.scoring.readings import Reading
    from gatenorm_stream.scoring.scores import LayerScore

EXAMPLES = """
gatenorm-stream score MODEL
gatenorm-stream score MODEL --drop 8 --json > scores.json
gatenorm-stream score MODEL --plot scores.html
gatenorm-stream score org/name@main    # fetches headers, q and k only
"""


@reported
def score(
    model: ModelName,
    drop: DropOption = None,
    share: ShareOption = None,
    protect_first: ProtectFirstOption = None,
    protect_last: ProtectLastOption = 0,
    reading: ReadingOption = "per-head",
    json_: Annotated[bool, typer.Option("--json", help="Print JSON instead of the table.")] = False,
    plot: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Draw the scores too, as .svg, .html or .png (which needs matplotlib)."),
    ] = None,
    revision: RevisionOption = None,
    connections: ConnectionsOption = None,
    threads: ThreadsOption = None,
    dask: DaskOption = None,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Show how strongly each layer's attention couples, and which would go."""
    choice = chosen(drop, share, None, None, protect_first, protect_last)
    from gatenorm_stream.families.open import open_model
    from gatenorm_stream.report.progress import progress_meter
    from gatenorm_stream.sources.open import open_source

    if plot:
        from gatenorm_stream.report.plot import check_plot

        check_plot(plot)
    with progress_meter(quiet) as meter:
        source = open_source(model, revision=revision, connections=connections, note=meter.note)
        with open_model(source) as read:
            if dask:
                from gatenorm_stream.scoring.cluster import score_on_cluster

                scores = score_on_cluster(dask, read, reading, progress=meter.report)
            else:
                from gatenorm_stream.scoring.score import scored

                scores = scored(read, reading, threads=threads, progress=meter.report)
    from gatenorm_stream.scoring.selection import select

    dropped = select(scores, choice)
    if plot:
        from gatenorm_stream.report.picture import score_picture
        from gatenorm_stream.report.plot import plot as draw

        draw(score_picture(source.title, reading, scores, dropped), plot)
    if json_:
        _print_json(read, reading, scores, dropped)
    elif not quiet:
        from gatenorm_stream.report.summary import model_line
        from gatenorm_stream.scoring.readings import describe_reading

        typer.echo(folded(model_line(read)))
        typer.echo(folded(f"{describe_reading(reading)}; the lowest would go first") + "\n")
        show_scores(scores, dropped, choice)
        if plot:
            typer.echo(f"\nwrote {plot}")


def _print_json(model: Model, reading: Reading, scores: tuple[LayerScore, ...], dropped: tuple[int, ...]) -> None:
    source = model.checkpoint.source
    report = {
        "model": source.title,
        "revision": source.revision,
        "reading": reading,
        "family": model.family.model_type,
        "layers": [{"layer": s.layer, "score": s.score, "heads": list(s.heads)} for s in scores],
        "dropped": list(dropped),
    }
    typer.echo(json.dumps(report, indent=1, ensure_ascii=False))
