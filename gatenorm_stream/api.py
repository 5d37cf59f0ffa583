"""The same as the command, as functions.

`progress` is called as progress(what, bytes done, bytes in all), from the calling thread for scoring and from
worker threads for writing and verifying. BLAS is left as it is set: OPENBLAS_NUM_THREADS=1, set before numpy
is imported, makes scoring fastest.
"""

from __future__ import annotations

from collections.abc import Iterable
from os import PathLike
from pathlib import Path

from gatenorm_stream.checkpoint.open import open_checkpoint
from gatenorm_stream.families import Model, read_model
from gatenorm_stream.formats.choice import FormatChoice, choose_format
from gatenorm_stream.layout import lay_out
from gatenorm_stream.plans import Plan, check_plan_fits
from gatenorm_stream.readings import Reading
from gatenorm_stream.report.model_card import model_card
from gatenorm_stream.rewrite import write_output
from gatenorm_stream.scores import LayerScore
from gatenorm_stream.scoring import Progress, score_model
from gatenorm_stream.selection import Choice, select
from gatenorm_stream.verification import Verified, verify_output


def score(
    source: str | PathLike[str],
    *,
    reading: Reading = "per-head",
    threads: int | None = None,
    progress: Progress | None = None,
) -> tuple[LayerScore, ...]:
    """The Gate-Norm score of every layer; the lowest would be removed first.

    Raises CheckpointError or UnsupportedModelError.
    """
    with open_checkpoint(Path(source)) as checkpoint:
        return score_model(read_model(checkpoint), reading, threads=threads, progress=progress)


def plan(
    source: str | PathLike[str],
    *,
    drop: int | None = None,
    share: float | None = None,
    layers: Iterable[int] | None = None,
    protect_first: int | None = None,
    protect_last: int = 0,
    reading: Reading = "per-head",
    format: str = "auto",
    engines: Iterable[str] = (),
    threads: int | None = None,
    progress: Progress | None = None,
) -> Plan:
    """Scores `source` and decides what goes; writes nothing.

    Give at most one of `drop` (a number), `share` (of all layers) and `layers`; without them a fifth of the
    attention sublayers goes. Raises SelectionError or FormatError beside the errors of `score`.
    """
    choice = Choice(drop, share, None if layers is None else tuple(layers), protect_first, protect_last)
    with open_checkpoint(Path(source)) as checkpoint:
        model = read_model(checkpoint)
        scores = score_model(model, reading, threads=threads, progress=progress)
        return make_plan(model, scores, choice, reading, format, tuple(engines))[0]


def prune(
    plan: Plan,
    out: str | PathLike[str],
    *,
    source: str | PathLike[str] | None = None,
    force: bool = False,
    restart: bool = False,
    threads: int | None = None,
    progress: Progress | None = None,
) -> None:
    """Carries out `plan` on its own source, or on `source` if that is given.

    Raises OutputError if `out` can't be written, PlanError if the plan does not fit the source.
    """
    with open_checkpoint(Path(source or plan.source)) as checkpoint:
        model = read_model(checkpoint)
        check_plan_fits(plan, model)
        choice = choose_format(model, plan.dropped, plan.format, plan.engines)
        layout = lay_out(plan, model)
        write_output(
            plan,
            layout,
            model,
            Path(out),
            card=model_card(plan, model, layout, choice),
            force=force,
            restart=restart,
            threads=threads,
            progress=progress,
        )


def verify(
    out: str | PathLike[str],
    *,
    against: str | PathLike[str] | None = None,
    progress: Progress | None = None,
) -> Verified:
    """Checks every byte of an output; with `against`, every kept tensor against the source's.

    Raises VerificationError with all that is wrong.
    """
    return verify_output(Path(out), Path(against) if against else None, progress=progress)


def make_plan(
    model: Model,
    scores: tuple[LayerScore, ...],
    choice: Choice,
    reading: Reading,
    format: str,
    engines: tuple[str, ...],
) -> tuple[Plan, FormatChoice]:
    """The decision, from a model's scores. Raises SelectionError or FormatError."""
    dropped = select(scores, choice)
    chosen = choose_format(model, dropped, format, engines)
    checkpoint = model.checkpoint
    plan = Plan(
        source=str(checkpoint.source),
        revision=None,
        family=model.family.model_type,
        reading=reading,
        scores=scores,
        dropped=dropped,
        format=chosen.format.name,
        engines=engines,
    )
    return plan, chosen
