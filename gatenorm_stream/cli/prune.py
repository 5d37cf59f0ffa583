"""`gatenorm-stream MODEL --out DIR`, the default command"""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from gatenorm_stream.cli.boundary import reported
from gatenorm_stream.cli.fold import folded, table_width, with_command
from gatenorm_stream.cli.options import (
    MEASURE,
    TOKENS,
    WHAT_GOES,
    ByOption,
    ConnectionsOption,
    DebugOption,
    DropOption,
    ModelName,
    ProtectFirstOption,
    ProtectLastOption,
    QuietOption,
    ReadingIfGiven,
    RevisionOption,
    ShareOption,
    TextOption,
    ThreadsOption,
    check_plan_alone,
    check_reading_of,
    chosen,
)
from gatenorm_stream.cli.push import repository_for, upload
from gatenorm_stream.cli.say import say, say_json
from gatenorm_stream.cli.shown_scores import show_scores
from gatenorm_stream.cli.started_as import next_command
from gatenorm_stream.cli.usage import UsageProblem
from gatenorm_stream.formats.engines import Engine
from gatenorm_stream.scoring.readings import Reading

if TYPE_CHECKING:
    from gatenorm_stream.families.model import Model
    from gatenorm_stream.planning.decide import By, Decision, Wanted
    from gatenorm_stream.planning.measured import Measured
    from gatenorm_stream.pruning import Prepared
    from gatenorm_stream.scoring.selection import Choice
    from gatenorm_stream.work import Progress

OUTPUT = "Output"
EXAMPLES = """
gatenorm-stream MODEL                                # what would go
gatenorm-stream MODEL --out DIR                      # an eighth of the layers
gatenorm-stream MODEL --out DIR --drop 8             # the 8 least coupled
gatenorm-stream MODEL --out DIR --layers 7,9-10      # exactly these layers
gatenorm-stream MODEL --out DIR --by influence       # chosen by a run of it
gatenorm-stream MODEL --out DIR --compensate         # a constant instead
gatenorm-stream MODEL --out DIR --engine llama.cpp   # for llama.cpp
gatenorm-stream MODEL --dry-run --json > plan.json   # the plan alone,
gatenorm-stream MODEL --out DIR --plan plan.json     # and carried out later
"""


Tokens = Annotated[int | None, TOKENS(show_default="512")]
MaxRise = Annotated[
    float | None,
    typer.Option(
        metavar="NATS",
        help="As many as keep the measured rise of the loss at this or below, in nats a token.",
        rich_help_panel=WHAT_GOES,
    ),
]
Compensate = Annotated[
    bool | None,
    typer.Option(
        "--compensate/--no-compensate",
        help="Replace each attention that goes by the mean of its output, or by nothing.",
        rich_help_panel=MEASURE,
    ),
]
Out = Annotated[
    Path | None,
    typer.Option(
        "--out",
        "-o",
        metavar="DIR",
        help="Directory (of a GGUF: file) to write; must not exist.",
        rich_help_panel=OUTPUT,
    ),
]
Layers = Annotated[
    str | None, typer.Option(metavar="LIST", help="Exactly these layers, as 3,7-9.", rich_help_panel=WHAT_GOES)
]
SavedPlan = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Repeat a saved plan: the gatenorm.json of an output, or what --dry-run --json printed.",
        rich_help_panel=WHAT_GOES,
    ),
]
Format = Annotated[
    Literal["auto", "no-op", "transformers", "zeroed"] | None,
    typer.Option(
        metavar="FORMAT",
        help="auto, no-op: attention absent; transformers: absent, for transformers; zeroed: all shapes kept.",
        rich_help_panel=OUTPUT,
        show_default="auto",
    ),
]
Engines = Annotated[
    list[Engine] | None,
    typer.Option(
        metavar="ENGINE",
        help="One that must run the result: transformers, llama.cpp, mlx-lm, vllm or sglang. May be repeated.",
        rich_help_panel=OUTPUT,
    ),
]
Also = Annotated[
    list[str] | None,
    typer.Option(
        metavar="FILE",
        help="A file of MODEL to take along beside those that a model is used with. May be repeated.",
        rich_help_panel=OUTPUT,
    ),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show the plan, write nothing.", rich_help_panel=OUTPUT)]
Force = Annotated[bool, typer.Option("--force", help="Replace an earlier output at --out.", rich_help_panel=OUTPUT)]
Restart = Annotated[
    bool, typer.Option("--restart", help="Discard what an unfinished run left.", rich_help_panel=OUTPUT)
]
PushTo = Annotated[
    str | None,
    typer.Option(
        metavar="REPO", help="Upload the output to org/name, private, on the Hub.", rich_help_panel=OUTPUT
    ),
]
AsJson = Annotated[
    bool, typer.Option("--json", help="Print the plan as JSON instead of tables.", rich_help_panel=OUTPUT)
]


@reported
def prune(
    model: ModelName,
    out: Out = None,
    drop: DropOption = None,
    share: ShareOption = None,
    layers: Layers = None,
    plan: SavedPlan = None,
    protect_first: ProtectFirstOption = None,
    protect_last: ProtectLastOption = 0,
    by: ByOption = None,
    max_rise: MaxRise = None,
    compensate: Compensate = None,
    text: TextOption = None,
    tokens: Tokens = None,
    reading: ReadingIfGiven = None,
    format: Format = None,
    engine: Engines = None,
    also: Also = None,
    dry_run: DryRun = False,
    force: Force = False,
    restart: Restart = False,
    push_to: PushTo = None,
    json_: AsJson = False,
    revision: RevisionOption = None,
    connections: ConnectionsOption = None,
    threads: ThreadsOption = None,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Prune MODEL into --out; without it, show the plan (the default command)."""
    if push_to and (dry_run or out is None):
        raise UsageProblem("--push-to uploads what is written; give --out, and no --dry-run")
    choice = chosen(drop, share, layers, plan, protect_first, protect_last, max_rise)
    wanted = _wanted(choice, plan, by, reading, compensate, text, tokens, format, engine, also)
    from gatenorm_stream.pruning import carry_out, prepare
    from gatenorm_stream.report.progress import progress_meter
    from gatenorm_stream.sources.open import open_source

    begun = time.monotonic()
    with progress_meter(quiet) as meter:
        source = open_source(model, revision=revision, connections=connections, note=meter.note)
        decide = partial(_again, plan) if plan else partial(_decide, wanted, threads, meter.report)
        runs = plan is None and wanted.may_run
        with prepare(source, decide, out, runs=runs, dry_run=dry_run, force=force, restart=restart) as prepared:
            repository = repository_for(push_to, prepared.layout) if push_to else None
            with meter.pause():
                _show_plan(prepared, json_, quiet)
            if out and not dry_run:
                write = partial(carry_out, prepared, out, force=force, restart=restart, threads=threads)
                write(progress=meter.report, note=meter.note)
    if not (quiet or json_):
        measured = prepared.decision.plan.own_measurement
        seconds = time.monotonic() - begun
        if dry_run:
            say("dry run: nothing was written")
        elif out is None:
            say("nothing was written; --out DIR writes it")
        else:
            _show_end(model, out, seconds, measured)
    if out and repository:
        upload(out, repository, quiet=quiet or json_)


def _wanted(
    choice: Choice,
    plan: Path | None,
    by: By | None,
    reading: Reading | None,
    compensate: bool | None,
    text: Path | None,
    tokens: int | None,
    format: str | None,
    engine: list[Engine] | None,
    also: list[str] | None,
) -> Wanted:
    """Raises UsageProblem for an option that another one makes pointless."""
    from gatenorm_stream.planning.decide import DEFAULT_TOKENS, Wanted

    if plan:
        check_plan_alone(
            by=by,
            compensate=compensate,
            text=text,
            tokens=tokens,
            reading=reading,
            format=format,
            engine=engine,
            also=also,
            protect_first=choice.protect_first,
        )
    check_reading_of(by, reading)
    wanted = Wanted(
        choice,
        by or "gate-norm",
        reading or "per-head",
        compensate,
        text,
        tokens or DEFAULT_TOKENS,
        format or "auto",
        tuple(engine or ()),
        tuple(also or ()),
    )
    if (text or tokens) and not wanted.may_run:
        raise UsageProblem("--text and --tokens are for --by influence, --compensate or --max-rise; give one too")
    return wanted


def _decide(wanted: Wanted, threads: int | None, progress: Progress, model: Model) -> Decision:
    from gatenorm_stream.planning.decide_for import decide_for

    return decide_for(model, wanted, threads=threads, progress=progress)


def _again(saved: Path, model: Model) -> Decision:
    from gatenorm_stream.planning.decide import decide_again
    from gatenorm_stream.planning.plan import read_plan

    return decide_again(read_plan(saved), model)


def _show_plan(prepared: Prepared, as_json: bool, quiet: bool) -> None:
    from gatenorm_stream.report.chosen import chosen_by
    from gatenorm_stream.report.summary import file_lines, model_line, plan_lines, size_table

    model, layout, plan = prepared.model, prepared.layout, prepared.decision.plan
    if as_json:
        say_json(plan.to_json())
        return
    if quiet:
        return
    say(folded(model_line(model)))
    say(folded(chosen_by(plan)) + "\n")
    if plan.scored:
        show_scores(plan.scores, plan.dropped, plan.choice, influence=plan.reading is None)
        say()
    for line in plan_lines(prepared.decision):
        say(folded(line))
    for line in (*model.checkpoint.remarks, *file_lines(layout)):
        say(folded(line))
    say(f"\n{size_table(model, plan, layout, table_width())}\n")


def _show_end(model: str, out: Path, seconds: float, measured: Measured | None) -> None:
    """What was done, what to type next, and last what the output costs, as far as that is known."""
    say(f"wrote {out} in {seconds:.1f} s")
    both = str(out), "--against", model
    say(with_command("next:", next_command("verify", *both)))
    if measured:
        cost = f"{measured.rise:+.3f} nats a token (standard error {measured.error:.3f})"
        say(folded(f"measured loss: {measured.loss:.3f} before, {measured.pruned:.3f} after, {cost}"))
    else:
        say(with_command("not measured:", next_command("measure", *both)))
