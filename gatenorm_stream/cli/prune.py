"""`gatenorm-stream MODEL --out DIR`, the default command"""

from __future__ import annotations

import json
import shlex
import shutil
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from gatenorm_stream.cli.boundary import reported
from gatenorm_stream.cli.decision import show_scores
from gatenorm_stream.cli.fold import folded
from gatenorm_stream.cli.options import (
    WHAT_GOES,
    ConnectionsOption,
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
from gatenorm_stream.cli.push import repository_for, upload
from gatenorm_stream.cli.usage import UsageProblem
from gatenorm_stream.formats.engines import Engine
from gatenorm_stream.scoring.readings import Reading, called

if TYPE_CHECKING:
    from gatenorm_stream.families.model import Model
    from gatenorm_stream.formats.choice import FormatChoice
    from gatenorm_stream.planning.layout import Layout
    from gatenorm_stream.planning.plan import Plan
    from gatenorm_stream.scoring.selection import Choice
    from gatenorm_stream.sources.source import Source
    from gatenorm_stream.work import Progress

OUTPUT = "Output"
EXAMPLES = """
gatenorm-stream MODEL --out DIR                      # a fifth of the layers
gatenorm-stream MODEL --out DIR --drop 8             # the 8 least coupled
gatenorm-stream MODEL --out DIR --layers 7,9-10      # these very layers
gatenorm-stream MODEL --out DIR --engine llama.cpp   # for llama.cpp
gatenorm-stream MODEL --dry-run --json > plan.json   # the plan alone,
gatenorm-stream MODEL --out DIR --plan plan.json     # and carried out later
"""


@reported
def prune(
    model: ModelName,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            metavar="DIR",
            help="Directory (of a GGUF: file) to write; must not exist.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    drop: DropOption = None,
    share: ShareOption = None,
    layers: Annotated[
        str | None, typer.Option(metavar="LIST", help="The very layers, as 3,7-9.", rich_help_panel=WHAT_GOES)
    ] = None,
    plan: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Repeat a saved plan: the gatenorm.json of an output, or what --dry-run --json printed.",
            rich_help_panel=WHAT_GOES,
        ),
    ] = None,
    protect_first: ProtectFirstOption = None,
    protect_last: ProtectLastOption = 0,
    reading: ReadingOption = "per-head",
    format: Annotated[
        Literal["auto", "no-op", "transformers", "zeroed"],
        typer.Option(
            metavar="FORMAT",
            help="auto, no-op: attention absent; transformers: absent, for transformers; zeroed: all shapes kept.",
            rich_help_panel=OUTPUT,
        ),
    ] = "auto",
    engine: Annotated[
        list[Engine] | None,
        typer.Option(
            metavar="ENGINE",
            help="One that must run the result: transformers, llama.cpp, mlx-lm, vllm or sglang. May be repeated.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the plan, write nothing.", rich_help_panel=OUTPUT)
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Replace an earlier output at --out.", rich_help_panel=OUTPUT)
    ] = False,
    restart: Annotated[
        bool,
        typer.Option("--restart", help="Discard what an unfinished run left.", rich_help_panel=OUTPUT),
    ] = False,
    push_to: Annotated[
        str | None,
        typer.Option(
            metavar="REPO", help="Upload the output to org/name, private, on the Hub.", rich_help_panel=OUTPUT
        ),
    ] = None,
    json_: Annotated[
        bool,
        typer.Option("--json", help="Print the plan as JSON instead of tables.", rich_help_panel=OUTPUT),
    ] = False,
    revision: RevisionOption = None,
    connections: ConnectionsOption = None,
    threads: ThreadsOption = None,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Prune MODEL into a new directory (the default command)."""
    if out is None and not dry_run:
        raise UsageProblem("give --out DIR, or --dry-run to only see the plan")
    if push_to and dry_run:
        raise UsageProblem("--push-to uploads what --dry-run does not write; give one of them")
    choice = chosen(drop, share, layers, plan, protect_first, protect_last)
    from gatenorm_stream.families.open import open_model
    from gatenorm_stream.report.progress import progress_meter
    from gatenorm_stream.sources.open import open_source
    from gatenorm_stream.writing.publication import remove_emptied
    from gatenorm_stream.writing.target import check_place

    begun = time.monotonic()
    with progress_meter(quiet) as meter, ExitStack() as stack:
        source = open_source(model, revision=revision, connections=connections, note=meter.note)
        read = stack.enter_context(open_model(source))
        target = None if dry_run else out
        if target:
            remove_emptied(target)
        if out:
            check_place(source, out, force=force)
        partial = _kept(source, target, restart, stack) if target else None
        if plan:
            decided, form = _saved_plan(plan, read)
        else:
            decided, form = _new_plan(read, choice, reading, format, engine or [], threads, meter.report)
        layout = _laid_out(decided, read, out)
        repository = repository_for(push_to, layout) if push_to else None
        with meter.pause():
            if json_:
                typer.echo(json.dumps(decided.to_json(), indent=1, ensure_ascii=False))
            elif not quiet:
                _show_plan(read, decided, form, layout, choice)
        if target:
            from gatenorm_stream.report.model_card import model_card
            from gatenorm_stream.writing.partial import open_partial
            from gatenorm_stream.writing.write import write_output

            write_output(
                decided,
                layout,
                read,
                target,
                partial or stack.enter_context(open_partial(target, restart=restart)),
                card=model_card(decided, read, layout, form),
                force=force,
                threads=threads,
                progress=meter.report,
            )
    if dry_run and not (quiet or json_):
        typer.echo("dry run: nothing was written")
    if target and not (quiet or json_):
        typer.echo(f"wrote {out} in {time.monotonic() - begun:.1f} s")
        typer.echo(f"next: gatenorm-stream verify {shlex.quote(str(out))} --against {shlex.quote(model)}")
    if target and repository:
        upload(target, repository, quiet=quiet or json_)


def _kept(source: Source, out: Path, restart: bool, stack: ExitStack) -> Path | None:
    """For a remote source, the `.partial`, in which what is fetched for the scores is kept from now on."""
    from gatenorm_stream.sources.hub.source import HubSource
    from gatenorm_stream.writing.partial import SPOOL, open_partial

    if not isinstance(source, HubSource):
        return None
    partial = stack.enter_context(open_partial(out, restart=restart))
    source.keep_in(partial / SPOOL)
    return partial


def _new_plan(
    model: Model,
    choice: Choice,
    reading: Reading,
    format: str,
    engines: list[Engine],
    threads: int | None,
    progress: Progress,
) -> tuple[Plan, FormatChoice]:
    from gatenorm_stream.planning.decide import make_plan
    from gatenorm_stream.scoring.score import scored

    scores = scored(model, reading, threads=threads, progress=progress)
    return make_plan(model, scores, choice, reading, format, tuple(e.value for e in engines))


def _saved_plan(path: Path, model: Model) -> tuple[Plan, FormatChoice]:
    from dataclasses import replace

    from gatenorm_stream.formats.choice import choose_format
    from gatenorm_stream.planning.plan import check_plan_fits, read_plan

    saved = read_plan(path)
    check_plan_fits(saved, model)
    source = model.checkpoint.source
    plan = replace(saved, source=source.title, revision=source.revision)
    choice = choose_format(model, plan.dropped, plan.format, plan.engines, compensated=bool(plan.constants))
    return plan, choice


def _laid_out(plan: Plan, model: Model, out: Path | None) -> Layout:
    from gatenorm_stream.planning.lay_out import lay_out
    from gatenorm_stream.writing.target import check_space

    layout = lay_out(plan, model)
    if out:
        check_space(layout, out)
    return layout


def _show_plan(model: Model, plan: Plan, form: FormatChoice, layout: Layout, choice: Choice) -> None:
    from gatenorm_stream.report.summary import file_lines, model_line, plan_lines, size_table

    typer.echo(folded(model_line(model)))
    typer.echo(folded(called(plan.reading)) + "\n")
    show_scores(plan.scores, plan.dropped, choice)
    typer.echo()
    for line in plan_lines(plan, form):
        typer.echo(folded(line))
    for line in file_lines(layout):
        typer.echo(folded(line))
    typer.echo(f"\n{size_table(model, plan, layout, shutil.get_terminal_size().columns)}\n")
