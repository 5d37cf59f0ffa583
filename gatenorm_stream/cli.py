"""The command. The only module that prints; errors are caught in one place, `_reported`."""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn, TypeVar

import typer
from typer.core import TyperGroup

from gatenorm_stream.errors import GateNormError, VerificationError
from gatenorm_stream.formats.engines import Engine
from gatenorm_stream.readings import Reading

if TYPE_CHECKING:
    from gatenorm_stream.families import Model
    from gatenorm_stream.formats.choice import FormatChoice
    from gatenorm_stream.layout import Layout
    from gatenorm_stream.plans import Plan
    from gatenorm_stream.selection import Choice

BLAS_THREADS = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
SHOWN_PROBLEMS = 20

F = TypeVar("F", bound=Callable[..., None])


class _PruneByDefault(TyperGroup):
    """`gatenorm-stream MODEL ...` is `gatenorm-stream prune MODEL ...`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        own = {option for param in self.get_params(ctx) for option in param.opts}
        if args and args[0] not in self.commands and args[0] not in own:
            args = ["prune", *args]
        return super().parse_args(ctx, args)


class _Terminated(BaseException):
    """SIGTERM, as an exception, so that what is open is closed."""


app = typer.Typer(
    cls=_PruneByDefault,
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    help="Remove the attention sublayers that matter least from an LLM checkpoint: no data, no GPU, no loading of "
    "the model.\n\n`gatenorm-stream MODEL --out DIR` prunes; `gatenorm-stream score MODEL` only shows the scores.",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from gatenorm_stream.version import VERSION

        typer.echo(f"gatenorm-stream {VERSION}")
        raise typer.Exit


def _reported(command: F) -> F:
    """Ends known errors with one line on standard error and exit code 1; interrupts with 130 and 143."""

    def terminate(*_: object) -> NoReturn:
        raise _Terminated

    @functools.wraps(command)
    def run(*args: Any, debug: bool = False, **kwargs: Any) -> None:
        signal.signal(signal.SIGTERM, terminate)
        try:
            command(*args, **kwargs)
            sys.stdout.flush()
        except (GateNormError, OSError, MemoryError) as error:
            if debug:
                raise
            if isinstance(error, BrokenPipeError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
                raise typer.Exit(141) from None
            _say(f"error: {_one_line(error)}")
            if isinstance(error, VerificationError) and len(error.problems) > 1:
                for problem in error.problems[:SHOWN_PROBLEMS]:
                    _say(f"  {problem}")
            raise typer.Exit(1) from None
        except KeyboardInterrupt:
            _say(f"interrupted{_how_to_go_on(kwargs)}")
            raise typer.Exit(130) from None
        except _Terminated:
            _say(f"terminated{_how_to_go_on(kwargs)}")
            raise typer.Exit(143) from None

    return run  # type: ignore[return-value]


def _one_line(error: BaseException) -> str:
    text = str(error) or type(error).__name__
    return re.sub(r"[\x00-\x1f\x7f]+", " ", text)


def _how_to_go_on(kwargs: dict[str, Any]) -> str:
    out = kwargs.get("out")
    partial = out and out.with_name(out.name + ".partial")
    return f"; {out} is untouched, the same command goes on from {partial}" if partial and partial.exists() else ""


ModelPath = Annotated[Path, typer.Argument(metavar="MODEL", help="Directory of a safetensors checkpoint.")]
ReadingOption = Annotated[Reading, typer.Option(help="How the formula is read; see the docs.")]
ThreadsOption = Annotated[int | None, typer.Option(min=1, help="Threads to use; all processors by default.")]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors and --json.")]
DebugOption = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
DropOption = Annotated[
    int | None, typer.Option(help="How many attention sublayers go.", rich_help_panel="What goes")
]
ShareOption = Annotated[
    float | None,
    typer.Option(help="Share of the attention sublayers that goes; 0.2 by default.", rich_help_panel="What goes"),
]
ProtectFirstOption = Annotated[
    int | None,
    typer.Option(
        min=0,
        help="Layers at the start that are never chosen; 1 by default, since llama.cpp and vLLM can't run without "
        "layer 0's attention.",
        rich_help_panel="What goes",
    ),
]
ProtectLastOption = Annotated[
    int, typer.Option(min=0, help="Layers at the end that are never chosen.", rich_help_panel="What goes")
]


@app.callback()
def _group(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


@app.command()
@_reported
def prune(
    model: ModelPath,
    out: Annotated[Path | None, typer.Option(help="Directory to write; must not exist.")] = None,
    drop: DropOption = None,
    share: ShareOption = None,
    layers: Annotated[
        str | None, typer.Option(help="The very layers, as 3,7-9.", rich_help_panel="What goes")
    ] = None,
    plan: Annotated[
        Path | None,
        typer.Option(help="Repeat a saved plan: the gatenorm.json of an output.", rich_help_panel="What goes"),
    ] = None,
    protect_first: ProtectFirstOption = None,
    protect_last: ProtectLastOption = 0,
    reading: ReadingOption = "per-head",
    format: Annotated[
        Literal["auto", "no-op", "zeroed"],
        typer.Option(help="no-op: attention absent; zeroed: all shapes kept.", rich_help_panel="Output"),
    ] = "auto",
    engine: Annotated[
        list[Engine] | None,
        typer.Option(help="An engine that must run the result; may be repeated.", rich_help_panel="Output"),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the plan, write nothing.", rich_help_panel="Output")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Replace an earlier output at --out.", rich_help_panel="Output")
    ] = False,
    restart: Annotated[
        bool,
        typer.Option("--restart", help="Discard what an unfinished run left.", rich_help_panel="Output"),
    ] = False,
    json_: Annotated[
        bool,
        typer.Option("--json", help="Print the plan as JSON instead of tables.", rich_help_panel="Output"),
    ] = False,
    threads: ThreadsOption = None,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Prune MODEL into a new directory (the default command)."""
    if out is None and not dry_run:
        raise typer.BadParameter("give --out DIR, or --dry-run to only see the plan")
    choice = _choice(drop, share, layers, plan, protect_first, protect_last)
    begun = time.monotonic()
    with _opened(model) as read:
        if plan:
            decided, chosen = _saved_plan(plan, read)
        else:
            decided, chosen = _new_plan(read, choice, reading, format, engine or [], threads, quiet)
        layout = _laid_out(decided, read, out, force)
        if json_:
            typer.echo(json.dumps(decided.to_json(), indent=1, ensure_ascii=False))
        elif not quiet:
            _show_plan(read, decided, chosen, layout, choice)
        if dry_run or out is None:
            if not (quiet or json_):
                typer.echo("dry run: nothing was written")
            return
        _write(decided, chosen, layout, read, out, force, restart, threads, quiet)
    if not (quiet or json_):
        typer.echo(f"wrote {out} in {time.monotonic() - begun:.1f} s")
        typer.echo(f"next: gatenorm-stream verify {_quoted(out)} --against {_quoted(model)}")


@app.command()
@_reported
def score(
    model: ModelPath,
    drop: DropOption = None,
    share: ShareOption = None,
    protect_first: ProtectFirstOption = None,
    protect_last: ProtectLastOption = 0,
    reading: ReadingOption = "per-head",
    json_: Annotated[bool, typer.Option("--json", help="Print JSON instead of the table.")] = False,
    threads: ThreadsOption = None,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Show how strongly each layer's attention couples, and which would go."""
    choice = _choice(drop, share, None, None, protect_first, protect_last)
    with _opened(model) as read:
        from gatenorm_stream.report.summary import model_line
        from gatenorm_stream.selection import select

        scores = _scores(read, reading, threads, quiet)
        dropped = select(scores, choice)
        if json_:
            report = {
                "model": str(model),
                "revision": None,
                "reading": reading,
                "family": read.family.model_type,
                "layers": [{"layer": s.layer, "score": s.score, "heads": list(s.heads)} for s in scores],
                "dropped": list(dropped),
            }
            typer.echo(json.dumps(report, indent=1, ensure_ascii=False))
        elif not quiet:
            typer.echo(model_line(read))
            typer.echo(f"Gate-Norm, reading {reading}; the lowest would go first\n")
            typer.echo(_table(scores, dropped))
            _note_protection(scores, dropped, choice)


@app.command()
@_reported
def verify(
    out: Annotated[Path, typer.Argument(metavar="DIR", help="An output of gatenorm-stream.")],
    against: Annotated[
        Path | None, typer.Option(help="The source model; every kept tensor is compared with it.")
    ] = None,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Check every byte of an output, and with --against every kept tensor."""
    from gatenorm_stream.report.progress import progress_bar
    from gatenorm_stream.report.quantities import si
    from gatenorm_stream.verification import verify_output

    with progress_bar(quiet) as progress:
        verified = verify_output(out, against, progress=progress)
    if not quiet:
        compared = f", each the same as in {against}" if against else ""
        typer.echo(
            f"verified {out}: {verified.files} files, {si(verified.bytes, 'B')}, "
            f"{verified.tensors} tensors{compared}"
        )


def main() -> None:
    """Entry point. Scoring runs its own threads, so BLAS gets one each, unless the user has set another number."""
    for name in BLAS_THREADS:
        os.environ.setdefault(name, "1")
    app()


@contextmanager
def _opened(path: Path) -> Iterator[Model]:
    from gatenorm_stream.checkpoint.open import open_checkpoint
    from gatenorm_stream.families import read_model

    with open_checkpoint(path) as checkpoint:
        yield read_model(checkpoint)


def _choice(
    drop: int | None,
    share: float | None,
    layers: str | None,
    plan: Path | None,
    protect_first: int | None,
    protect_last: int,
) -> Choice:
    from gatenorm_stream.selection import Choice

    given = {"--drop": drop, "--share": share, "--layers": layers, "--plan": plan}
    used = [name for name, value in given.items() if value is not None]
    if len(used) > 1:
        raise typer.BadParameter(f"{' and '.join(used)} exclude each other; give one")
    return Choice(drop, share, _layers(layers), protect_first, protect_last)


def _layers(text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    layers: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,6})(?:-(\d{1,6}))?\s*", part)
        if not match or (match[2] and int(match[2]) < int(match[1])):
            raise typer.BadParameter(f"--layers takes numbers and ranges as 3,7-9, not {text!r}")
        layers += range(int(match[1]), int(match[2] or match[1]) + 1)
    return tuple(layers)


def _scores(model: Model, reading: Reading, threads: int | None, quiet: bool) -> tuple[Any, ...]:
    from gatenorm_stream.report.progress import progress_bar
    from gatenorm_stream.scoring import score_model

    with progress_bar(quiet) as progress:
        return score_model(model, reading, threads=threads, progress=progress)


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

    scores = _scores(model, reading, threads, quiet)
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
    from gatenorm_stream.rewrite import check_target

    layout = lay_out(plan, model)
    if out:
        check_target(layout, model, out, force=force)
    return layout


def _write(
    plan: Plan,
    chosen: FormatChoice,
    layout: Layout,
    model: Model,
    out: Path,
    force: bool,
    restart: bool,
    threads: int | None,
    quiet: bool,
) -> None:
    from gatenorm_stream.report.model_card import model_card
    from gatenorm_stream.report.progress import progress_bar
    from gatenorm_stream.rewrite import write_output

    card = model_card(plan, model, layout, chosen)
    with progress_bar(quiet) as progress:
        write_output(
            plan,
            layout,
            model,
            out,
            card=card,
            force=force,
            restart=restart,
            threads=threads,
            progress=progress,
        )


def _show_plan(model: Model, plan: Plan, chosen: FormatChoice, layout: Layout, choice: Choice) -> None:
    from gatenorm_stream.report.summary import model_line, plan_lines, size_table

    typer.echo(model_line(model))
    typer.echo(f"Gate-Norm, reading {plan.reading}\n")
    typer.echo(_table(plan.scores, plan.dropped))
    _note_protection(plan.scores, plan.dropped, choice)
    typer.echo()
    for line in plan_lines(plan, chosen):
        typer.echo(line)
    if layout.left_out:
        typer.echo(f"left out: {', '.join(layout.left_out)}")
    typer.echo()
    typer.echo(size_table(model, plan, layout))
    typer.echo()


def _note_protection(scores: Any, dropped: tuple[int, ...], choice: Choice) -> None:
    """Says so if the default protection of layer 0 changed what goes."""
    from gatenorm_stream.selection import protection_mattered

    if protection_mattered(scores, dropped, choice):
        typer.echo("layer 0 scores low but stays: llama.cpp and vLLM can't run without it (--protect-first 0)")


def _table(scores: Any, dropped: tuple[int, ...]) -> str:
    from gatenorm_stream.report.score_table import score_table

    width = min(shutil.get_terminal_size().columns, 100)
    encoding = (sys.stdout.encoding or "ascii").lower()
    return score_table(scores, dropped, width=width, unicode=encoding.startswith("utf"))


def _quoted(path: Path | None) -> str:
    import shlex

    return shlex.quote(str(path))


def _say(line: str) -> None:
    typer.echo(line, err=True)
