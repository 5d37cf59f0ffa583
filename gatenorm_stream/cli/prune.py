"""`gatenorm-stream MODEL --out DIR`, the default command"""

from __future__ import annotations

import json
import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from gatenorm_stream.cli.boundary import reported
from gatenorm_stream.cli.decision import opened, scored, show_scores, wrapped
from gatenorm_stream.cli.options import (
    WHAT_GOES,
    DebugOption,
    DropOption,
    ModelPath,
    ProtectFirstOption,
    ProtectLastOption,
    QuietOption,
    ReadingOption,
    ShareOption,
    ThreadsOption,
    chosen,
)
from gatenorm_stream.formats.engines import Engine
from gatenorm_stream.readings import Reading

if TYPE_CHECKING:
    from gatenorm_stream.families import Model
    from gatenorm_stream.formats.choice import FormatChoice
    from gatenorm_stream.layout import Layout
    from gatenorm_stream.plans import Plan
    from gatenorm_stream.selection import Choice

OUTPUT = "Output"


@reported
def prune(
    model: ModelPath,
    out: Annotated[Path | None, typer.Option(help="Directory to write; must not exist.")] = None,
    drop: DropOption = None,
    share: ShareOption = None,
    layers: Annotated[
        str | None, typer.Option(help="The very layers, as 3,7-9.", rich_help_panel=WHAT_GOES)
    ] = None,
    plan: Annotated[
        Path | None,
        typer.Option(help="Repeat a saved plan: the gatenorm.json of an output.", rich_help_panel=WHAT_GOES),
    ] = None,
    protect_first: ProtectFirstOption = None,
    protect_last: ProtectLastOption = 0,
    reading: ReadingOption = "per-head",
    format: Annotated[
        Literal["auto", "no-op", "zeroed"],
        typer.Option(help="no-op: attention absent; zeroed: all shapes kept.", rich_help_panel=OUTPUT),
    ] = "auto",
    engine: Annotated[
        list[Engine] | None,
        typer.Option(help="An engine that must run the result; may be repeated.", rich_help_panel=OUTPUT),
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
    json_: Annotated[
        bool,
        typer.Option("--json", help="Print the plan as JSON instead of tables.", rich_help_panel=OUTPUT),
    ] = False,
    threads: ThreadsOption = None,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Prune MODEL into a new directory (the default command)."""
    if out is None and not dry_run:
        raise typer.BadParameter("give --out DIR, or --dry-run to only see the plan")
    choice = chosen(drop, share, layers, plan, protect_first, protect_last)
    begun = time.monotonic()
    with opened(model) as read:
        if plan:
            decided, form = _saved_plan(plan, read)
        else:
            decided, form = _new_plan(read, choice, reading, format, engine or [], threads, quiet)
        layout = _laid_out(decided, read, out, force)
        if json_:
            typer.echo(json.dumps(decided.to_json(), indent=1, ensure_ascii=False))
        elif not quiet:
            _show_plan(read, decided, form, layout, choice)
        if dry_run or out is None:
            if not (quiet or json_):
                typer.echo("dry run: nothing was written")
            return
        from gatenorm_stream.report.model_card import model_card
        from gatenorm_stream.report.progress import progress_bar
        from gatenorm_stream.rewrite import write_output

        with progress_bar(quiet) as progress:
            write_output(
                decided,
                layout,
                read,
                out,
                card=model_card(decided, read, layout, form),
                force=force,
                restart=restart,
                threads=threads,
                progress=progress,
            )
    if not (quiet or json_):
        typer.echo(f"wrote {out} in {time.monotonic() - begun:.1f} s")
        typer.echo(f"next: gatenorm-stream verify {shlex.quote(str(out))} --against {shlex.quote(str(model))}")


def _new_plan(
    model: Model,
    choice: Choice,
    reading: Reading,
    format: str,
    engines: list[Engine],
    threads: int | None,
    quiet: bool,
) -> tuple[Plan, FormatChoice]:
    from gatenorm_stream.api import make_plan

    scores = scored(model, reading, threads, quiet)
    return make_plan(model, scores, choice, reading, format, tuple(e.value for e in engines))


def _saved_plan(path: Path, model: Model) -> tuple[Plan, FormatChoice]:
    from dataclasses import replace

    from gatenorm_stream.formats.choice import choose_format
    from gatenorm_stream.plans import check_plan_fits, read_plan

    saved = read_plan(path)
    check_plan_fits(saved, model)
    plan = replace(saved, source=str(model.checkpoint.source))
    return plan, choose_format(model, plan.dropped, plan.format, plan.engines)


def _laid_out(plan: Plan, model: Model, out: Path | None, force: bool) -> Layout:
    from gatenorm_stream.layout import lay_out
    from gatenorm_stream.target import check_target

    layout = lay_out(plan, model)
    if out:
        check_target(layout, model, out, force=force)
    return layout


def _show_plan(model: Model, plan: Plan, form: FormatChoice, layout: Layout, choice: Choice) -> None:
    from gatenorm_stream.report.summary import model_line, plan_lines, size_table

    typer.echo(model_line(model))
    typer.echo(f"Gate-Norm, reading {plan.reading}\n")
    show_scores(plan.scores, plan.dropped, choice)
    typer.echo()
    for line in plan_lines(plan, form):
        typer.echo(wrapped(line))
    if layout.left_out:
        typer.echo(wrapped(f"left out: {', '.join(layout.left_out)}"))
    typer.echo(f"\n{size_table(model, plan, layout)}\n")
