"""`gatenorm-stream score MODEL`"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gatenorm_stream.cli.boundary import reported
from gatenorm_stream.cli.fold import folded
from gatenorm_stream.cli.options import (
    TOKENS,
    ByOption,
    ConnectionsOption,
    DaskInsecureOption,
    DaskOption,
    DebugOption,
    DropOption,
    ForcePictureOption,
    ModelName,
    ProtectFirstOption,
    ProtectLastOption,
    QuietOption,
    ReadingIfGiven,
    RevisionOption,
    ShareOption,
    TextOption,
    ThreadsOption,
    check_reading_of,
    chosen,
)
from gatenorm_stream.cli.say import say, say_json
from gatenorm_stream.cli.shown_scores import show_scores
from gatenorm_stream.cli.usage import UsageProblem

if TYPE_CHECKING:
    from gatenorm_stream.families.model import Model
    from gatenorm_stream.measuring.influence import Influences
    from gatenorm_stream.scoring.readings import Reading
    from gatenorm_stream.scoring.scores import LayerScore
    from gatenorm_stream.work import Progress

EXAMPLES = """
gatenorm-stream score MODEL
gatenorm-stream score MODEL --drop 8 --json > scores.json
gatenorm-stream score MODEL --plot scores.html
gatenorm-stream score MODEL --by influence    # by one run of the model
gatenorm-stream score org/name@main    # fetches headers, q and k only
"""


@reported
def score(
    model: ModelName,
    drop: DropOption = None,
    share: ShareOption = None,
    protect_first: ProtectFirstOption = None,
    protect_last: ProtectLastOption = 0,
    by: ByOption = None,
    text: TextOption = None,
    tokens: Annotated[int | None, TOKENS(show_default="512")] = None,
    reading: ReadingIfGiven = None,
    json_: Annotated[bool, typer.Option("--json", help="Print JSON instead of the table.")] = False,
    plot: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Draw the scores too, as .svg, .html or .png (which needs matplotlib)."),
    ] = None,
    force: ForcePictureOption = False,
    revision: RevisionOption = None,
    connections: ConnectionsOption = None,
    threads: ThreadsOption = None,
    dask: DaskOption = None,
    dask_insecure: DaskInsecureOption = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Show how strongly each layer's attention couples, or turns the stream, and which would go.

    Of an output, the layers that are left."""
    choice = chosen(drop, share, None, None, protect_first, protect_last)
    _check(by, reading, text, tokens, dask, dask_insecure)
    from gatenorm_stream.families.open import open_model
    from gatenorm_stream.report.progress import progress_meter
    from gatenorm_stream.scoring.selection import Choice, select
    from gatenorm_stream.sources.open import open_source

    if plot:
        from gatenorm_stream.report.plot import check_plot

        check_plot(plot, force=force)
    with progress_meter(quiet) as meter:
        source = open_source(model, revision=revision, connections=connections, note=meter.note)
        with open_model(source, pruned=True) as read:
            if read.pruned and choice != Choice():
                raise UsageProblem(f"{source.title} is an output: nothing goes from it; leave out what chooses")
            found: Influences | Reading
            if by == "influence":
                found = _measured(read, text, tokens, threads, meter.report)
                scores = found.scores
            else:
                found = reading or "per-head"
                scores = _scored(read, found, dask, dask_insecure, threads, meter.report)
    dropped = () if read.pruned else select(scores, choice)
    if plot:
        _draw(source.title, found, scores, dropped, plot, force=force)
    if json_:
        say_json(_json(read, found, scores, dropped))
    elif not quiet:
        for line in _heading(read, found):
            say(folded(line))
        say()
        show_scores(scores, dropped, None if read.pruned else choice, influence=by == "influence")
        if plot:
            say(f"\nwrote {plot}")


def _draw(
    title: str,
    found: Influences | Reading,
    scores: tuple[LayerScore, ...],
    dropped: tuple[int, ...],
    plot: Path,
    *,
    force: bool,
) -> None:
    from gatenorm_stream.report.picture import score_picture
    from gatenorm_stream.report.plot import plot as draw

    draw(score_picture(title, found if isinstance(found, str) else None, scores, dropped), plot, force=force)


def _check(
    by: str | None,
    reading: str | None,
    text: Path | None,
    tokens: int | None,
    dask: str | None,
    dask_insecure: bool,
) -> None:
    """Raises UsageProblem for an option that another one makes pointless."""
    check_reading_of(by, reading)
    if dask_insecure and not dask:
        raise UsageProblem("--dask-insecure says how --dask may be reached; give that too")
    if dask and by == "influence":
        raise UsageProblem("--dask scores weights, and --by influence runs the model; give one of them")
    if (text or tokens) and by != "influence":
        raise UsageProblem("--text and --tokens are for --by influence; give it too")


def _measured(
    model: Model, text: Path | None, tokens: int | None, threads: int | None, progress: Progress
) -> Influences:
    from gatenorm_stream.measuring.influence import measure_influence
    from gatenorm_stream.planning.decide import DEFAULT_TOKENS

    return measure_influence(model, text, tokens or DEFAULT_TOKENS, threads=threads, progress=progress)


def _scored(
    model: Model, reading: Reading, dask: str | None, insecure: bool, threads: int | None, progress: Progress
) -> tuple[LayerScore, ...]:
    if dask:
        from gatenorm_stream.scoring.cluster import score_on_cluster

        return score_on_cluster(dask, model, reading, insecure=insecure, progress=progress)
    from gatenorm_stream.scoring.score import scored

    return scored(model, reading, threads=threads, progress=progress)


def _heading(model: Model, found: Influences | Reading) -> Iterator[str]:
    from gatenorm_stream.report.summary import left_lines, model_line

    yield model_line(model)
    yield _describe(found) if model.pruned else f"{_describe(found)}; the lowest would go first"
    yield from left_lines(model)


def _describe(found: Influences | Reading) -> str:
    from gatenorm_stream.scoring.readings import describe_reading

    if isinstance(found, str):
        return describe_reading(found)
    return f"{describe_reading(None)} on {found.tokens} tokens of {found.sample.name}"


def _json(
    model: Model, found: Influences | Reading, scores: tuple[LayerScore, ...], dropped: tuple[int, ...]
) -> dict[str, object]:
    source = model.checkpoint.source
    how: dict[str, object]
    if isinstance(found, str):
        how = {"reading": found}
        layers = [{"layer": s.layer, "score": s.score, "heads": list(s.heads)} for s in scores]
    else:
        text = {"name": found.sample.name, "blake3": found.sample.digest}
        how = {"by": "influence", "text": text, "tokens": found.tokens}
        layers = [{"layer": s.layer, "influence": s.influence, "constant": s.constant} for s in found.sublayers]
    return {
        "model": source.title,
        "revision": source.revision,
        **how,
        "family": model.family.model_type,
        "layers": layers,
        "dropped": list(dropped),
    }
