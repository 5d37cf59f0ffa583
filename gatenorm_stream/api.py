"""What the command does, as functions. They print nothing and keep no state between calls.

`progress` is called as progress(what, bytes done, bytes in all, file), from the calling thread for scoring and from
worker threads for writing and verifying:

Examples:
    >>> def show(what, done, total, file):
    ...     if done == total:
    ...         print(what, total, "bytes")
    >>> scores = score("fixtures/sotu-5m", progress=show)
    scoring 1179648 bytes

BLAS is left as it is set: OPENBLAS_NUM_THREADS=1, set before numpy is imported, makes scoring fastest.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from os import PathLike
from pathlib import Path

from gatenorm_stream.errors import GateNormError, SelectionError, VerificationError
from gatenorm_stream.families.open import open_model
from gatenorm_stream.measuring.measurement import Measurement
from gatenorm_stream.planning.decide import DEFAULT_TOKENS, By, Wanted, check_by, decide_again
from gatenorm_stream.planning.decide_for import decide_for
from gatenorm_stream.planning.plan import Plan, read_plan
from gatenorm_stream.pruning import carry_out, prepare
from gatenorm_stream.scoring.readings import Reading, check_reading
from gatenorm_stream.scoring.score import scored
from gatenorm_stream.scoring.scores import LayerScore
from gatenorm_stream.scoring.selection import Choice
from gatenorm_stream.sources.open import open_source
from gatenorm_stream.verifying.verified import Verified
from gatenorm_stream.verifying.verify import verify as verify_output
from gatenorm_stream.work import Progress

__all__ = [
    "GateNormError",
    "LayerScore",
    "Measurement",
    "Plan",
    "Progress",
    "Reading",
    "VerificationError",
    "Verified",
    "measure",
    "plan",
    "prune",
    "read_plan",
    "score",
    "verify",
]


def score(
    source: str | PathLike[str],
    *,
    by: By = "gate-norm",
    reading: Reading = "per-head",
    text: str | PathLike[str] | None = None,
    tokens: int = DEFAULT_TOKENS,
    revision: str | None = None,
    threads: int | None = None,
    connections: int | None = None,
    progress: Progress | None = None,
) -> tuple[LayerScore, ...]:
    """The score of every layer by Gate-Norm, in one of its readings; the lowest would be removed first. Or, if `by`
    is "influence", that in its place, from a run of the model on `tokens` of `text` (a file, or the built-in one).

    `source` is a local directory or GGUF file, or org/name[@revision] on the Hub. Raises CheckpointError (HubError
    for what the Hub refuses) or UnsupportedModelError.

    Examples:
        >>> scores = score("fixtures/sotu-5m")
        >>> lowest = min(scores, key=lambda s: s.score)
        >>> lowest.layer, round(lowest.score, 2), len(lowest.heads)
        (9, 10.49, 6)
    """
    check_reading(reading)
    check_by(by)
    with open_model(open_source(source, revision=revision, connections=connections)) as model:
        if by == "influence":
            from gatenorm_stream.measuring.influence import measure_influence

            return measure_influence(model, text, tokens, threads=threads, progress=progress).scores
        return scored(model, reading, threads=threads, progress=progress)


def plan(
    source: str | PathLike[str],
    *,
    scores: Sequence[LayerScore] | None = None,
    drop: int | None = None,
    share: float | None = None,
    layers: Iterable[int] | None = None,
    protect_first: int | None = None,
    protect_last: int = 0,
    by: By = "gate-norm",
    reading: Reading = "per-head",
    compensate: bool | None = None,
    max_rise: float | None = None,
    text: str | PathLike[str] | None = None,
    tokens: int = DEFAULT_TOKENS,
    format: str = "auto",
    engines: Iterable[str] = (),
    also: Iterable[str] = (),
    revision: str | None = None,
    threads: int | None = None,
    connections: int | None = None,
    progress: Progress | None = None,
) -> Plan:
    """Scores `source` and decides what goes; writes nothing.

    Give at most one of `drop` (a number), `share` (of all layers), `layers` and `max_rise`; without them an eighth
    of the attention sublayers goes. With `scores`, which `score` found in the same model by the same `reading`, it
    is not scored again. Raises SelectionError or FormatError beside the errors of `score`.

    `also` names files of the source to take along, beside those that a model is used with.

    The model is run, a layer at a time, if `by` is "influence", with `compensate` (a constant stands in the place
    of each attention that goes), or with `max_rise` (as many go as keep the rise of the loss at that or below, in
    nats a token): on `tokens` of `text`, a file or the built-in one, and as many others to judge on. Then
    `Plan.measured` has the losses, and TextError may be raised too.

    Examples:
        >>> scores = score("fixtures/sotu-5m")
        >>> for n in (1, 2, 3):
        ...     print(plan("fixtures/sotu-5m", drop=n, scores=scores).dropped)
        (9,)
        (9, 10)
        (8, 9, 10)
        >>> plan("fixtures/sotu-5m", drop=12)
        Traceback (most recent call last):
        gatenorm_stream.errors.SelectionError: can't drop 12 attention sublayers of 12: at least one must stay; ...

        `Plan.to_json` gives what `read_plan` reads:

        >>> import json
        >>> text = json.dumps(plan("fixtures/sotu-5m", scores=scores).to_json())
        >>> _ = Path(folder, "plan.json").write_text(text)
        >>> read_plan(Path(folder, "plan.json")).dropped
        (9,)
    """
    check_reading(reading)
    named = None if layers is None else tuple(layers)
    rise = None if max_rise is None else float(max_rise)
    choice = Choice(drop, share, named, protect_first, protect_last, rise)
    wanted = Wanted(choice, by, reading, compensate, text, tokens, format, tuple(engines), tuple(also))
    with open_model(open_source(source, revision=revision, connections=connections)) as model:
        if scores is not None and [s.layer for s in scores] != [a.layer for a in model.attention]:
            raise SelectionError(f"the scores are not those of {source}: other layers; score it")
        return decide_for(model, wanted, scores=scores, threads=threads, progress=progress).plan


def prune(
    plan: Plan,
    out: str | PathLike[str],
    *,
    source: str | PathLike[str] | None = None,
    force: bool = False,
    restart: bool = False,
    threads: int | None = None,
    connections: int | None = None,
    progress: Progress | None = None,
) -> None:
    """Carries out `plan` on its own source at its own revision, or on `source` if that is given.

    `out` appears whole or not at all; an interrupted run resumes. Raises OutputError if `out`
    can't be written, PlanError if the plan does not fit the source.

    Examples:
        >>> prune(plan("fixtures/sotu-5m", layers=[7, 9]), f"{folder}/pruned")
        >>> sorted(path.name for path in Path(folder, "pruned").iterdir())[-3:]
        ['modeling_gatenorm.py', 'tokenizer.json', 'tokenizer_config.json']
    """
    revision = None if source else plan.revision
    opened = open_source(source or plan.source, revision=revision, connections=connections)
    with prepare(opened, partial(decide_again, plan), Path(out), force=force, restart=restart) as prepared:
        carry_out(prepared, Path(out), force=force, restart=restart, threads=threads, progress=progress)


def measure(
    source: str | PathLike[str],
    *,
    text: str | PathLike[str] | None = None,
    tokens: int = DEFAULT_TOKENS,
    random: int | None = None,
    by: By | None = None,
    reading: Reading = "per-head",
    revision: str | None = None,
    threads: int | None = None,
    connections: int | None = None,
    progress: Progress | None = None,
) -> Measurement:
    """Runs the model, a layer at a time, and says what the loss would be without some of its attention.

    On `tokens` of `text` (a file, or the built-in one) choices are made, on as many others they are judged. Beside
    them stand `random` random choices at every number of sublayers; if it is None, five, for a large model at the
    default number only. `by` leaves one criterion out.
    Raises UnsupportedModelError if the model can't be run here, TextError, and the errors of `score`.

    Examples:
        >>> measured = measure("fixtures/sotu-5m", tokens=32, random=1)
        >>> measured.tokens, measured.passes, measured.counts
        (32, 2, (1, 2, 3, 4))
        >>> best = min(measured.of("influence", 2, compensated=True), key=lambda choice: choice.rise)
        >>> best.dropped == tuple(sorted(best.dropped)), len(best.dropped)
        (True, 2)
    """
    from gatenorm_stream.measuring.measure import measure_model

    if by is not None:
        check_by(by)
    with open_model(open_source(source, revision=revision, connections=connections)) as model:
        found, _ = measure_model(model, reading, text, tokens, random, by=by, threads=threads, progress=progress)
        return found


def verify(
    out: str | PathLike[str],
    *,
    against: str | PathLike[str] | None = None,
    revision: str | None = None,
    connections: int | None = None,
    progress: Progress | None = None,
) -> Verified:
    """Checks every byte of an output; with `against`, every kept tensor against the source's.

    Raises VerificationError with all that is wrong.

    Examples:
        >>> prune(plan("fixtures/sotu-5m", drop=2), f"{folder}/out")
        >>> verify(f"{folder}/out", against="fixtures/sotu-5m").tensors
        100
        >>> with open(f"{folder}/out/config.json", "a") as file:
        ...     _ = file.write(" ")
        >>> try:
        ...     verify(f"{folder}/out")
        ... except VerificationError as error:
        ...     print(error.problems[0])
        config.json ...
    """
    source = open_source(against, revision=revision, connections=connections) if against else None
    return verify_output(Path(out), source, progress=progress)
