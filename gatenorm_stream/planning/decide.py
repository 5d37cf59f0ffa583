"""The decision: scores, or a plan that was saved, become what will be done to a model."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from os import PathLike
from typing import Literal, TypeAlias, get_args

from gatenorm_stream.checkpoint.fingerprint import fingerprint
from gatenorm_stream.errors import FormatError, GateNormError
from gatenorm_stream.families.model import Model
from gatenorm_stream.formats.choice import FormatChoice, choose_format
from gatenorm_stream.formats.edit import Constants
from gatenorm_stream.formats.quantised import is_quantised
from gatenorm_stream.planning.measured import Measured
from gatenorm_stream.planning.plan import Plan, check_plan_fits
from gatenorm_stream.scoring.readings import Reading
from gatenorm_stream.scoring.scores import LayerScore
from gatenorm_stream.scoring.selection import Choice, select

By: TypeAlias = Literal["gate-norm", "influence"]
DEFAULT_TOKENS = 512
COMPENSATE = False
"""Whether constants are put in the place of what goes, where nobody says so and numpy runs the model."""


def check_by(by: str) -> None:
    """Raises GateNormError for a criterion that there is not."""
    if by not in get_args(By):
        raise GateNormError(f"nothing chooses by {by}; give one of {', '.join(get_args(By))}")


@dataclass(frozen=True)
class Decision:
    """The plan, and why its format was chosen.

    `following` is the rise, in nats a token, if one sublayer more had gone than `Choice.max_rise` allows.
    """

    plan: Plan
    form: FormatChoice
    following: float | None = None


@dataclass(frozen=True)
class Wanted:
    """What a user asked for. `reading` matters where Gate-Norm chooses.

    The model is run if influence chooses, constants are wanted, or `choice` names the largest rise of the loss: on
    `tokens` of `text`, and as many others to judge on. None for `compensate` is the default, for `text` the
    built-in one. `also` are files of the source to take along.
    """

    choice: Choice = field(default_factory=Choice)
    by: By = "gate-norm"
    reading: Reading = "per-head"
    compensate: bool | None = None
    text: str | PathLike[str] | None = None
    tokens: int = DEFAULT_TOKENS
    format: str = "auto"
    engines: tuple[str, ...] = ()
    also: tuple[str, ...] = ()

    @property
    def may_run(self) -> bool:
        """Whether the model is run, or by default is where numpy can."""
        compensated = COMPENSATE if self.compensate is None else self.compensate
        return self.by == "influence" or compensated or self.choice.max_rise is not None


def decide_by_scores(
    model: Model,
    scores: tuple[LayerScore, ...],
    wanted: Wanted,
    dropped: tuple[int, ...] | None = None,
    *,
    constants: Constants | None = None,
    measured: Measured | None = None,
    scored: bool = True,
) -> Decision:
    """`dropped` is what `wanted.choice` takes of the scores, unless it was found otherwise.

    `constants`, if there are any, stand in the place of that attention. Without `scored`, `scores` tell the layers
    and nothing else, and `wanted.choice` names some of them. Raises SelectionError or FormatError.
    """
    if dropped is None:
        dropped = select(scores, wanted.choice)
    form = choose_format(model, dropped, wanted.format, wanted.engines, compensated=bool(constants))
    source = model.checkpoint.source
    plan = Plan(
        source=source.title,
        revision=source.revision,
        family=model.family.model_type,
        reading=wanted.reading if wanted.by == "gate-norm" and scored else None,
        scores=scores,
        dropped=dropped,
        format=form.format.name,
        engines=wanted.engines,
        choice=wanted.choice,
        constants=constants or {},
        measured=measured,
        scored=scored,
        also=wanted.also,
    )
    return Decision(plan, form)


def _measured_elsewhere(saved: Plan, model: Model) -> str | None:
    """The name of the model that the plan's numbers are of, if it is not this one, as far as can be told.

    A remote model's weights are not here: it is the same if repository and commit are.
    """
    source, measured = model.checkpoint.source, saved.measured
    if measured is None:
        return None
    if source.remote:
        same = (source.title, source.revision) == (saved.source, saved.revision) and not measured.elsewhere
    else:
        same = fingerprint(model.checkpoint) == measured.fingerprint
    return None if same else measured.elsewhere or saved.source


def decide_again(saved: Plan, model: Model) -> Decision:
    """The same for `model`, wherever that is now; if its weights are quantised, it may take another format.

    Raises PlanError if it does not fit, FormatError.
    """
    check_plan_fits(saved, model)
    source, compensated = model.checkpoint.source, bool(saved.constants)
    try:
        form = choose_format(model, saved.dropped, saved.format, saved.engines, compensated=compensated)
    except FormatError:
        if not is_quantised(model):
            raise
        form = choose_format(model, saved.dropped, engines=saved.engines, compensated=compensated)
    of = saved.scores_of or (saved.source if saved.scored and model.unread else None)
    measured = saved.measured and replace(saved.measured, elsewhere=_measured_elsewhere(saved, model))
    moved = replace(saved, source=source.title, revision=source.revision, measured=measured)
    return Decision(replace(moved, format=form.format.name, scores_of=of), form)
