"""The decision: scores, or a plan that was saved, become what will be done to a model."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from os import PathLike
from typing import Literal, TypeAlias

from gatenorm_stream.families.model import Model
from gatenorm_stream.formats.choice import FormatChoice, choose_format
from gatenorm_stream.formats.edit import Constants
from gatenorm_stream.planning.measured import Measured
from gatenorm_stream.planning.plan import Plan, check_plan_fits
from gatenorm_stream.scoring.readings import Reading
from gatenorm_stream.scoring.scores import LayerScore
from gatenorm_stream.scoring.selection import Choice, select

By: TypeAlias = Literal["gate-norm", "influence"]
DEFAULT_TOKENS = 512
COMPENSATE = False
"""Whether constants are put in the place of what goes, where nobody says so and numpy runs the model."""


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
) -> Decision:
    """`dropped` is what `wanted.choice` takes of the scores, unless it was found otherwise.

    `constants`, if there are any, stand in the place of that attention. Raises SelectionError or FormatError.
    """
    if dropped is None:
        dropped = select(scores, wanted.choice)
    form = choose_format(model, dropped, wanted.format, wanted.engines, compensated=bool(constants))
    source = model.checkpoint.source
    plan = Plan(
        source=source.title,
        revision=source.revision,
        family=model.family.model_type,
        reading=wanted.reading if wanted.by == "gate-norm" else None,
        scores=scores,
        dropped=dropped,
        format=form.format.name,
        engines=wanted.engines,
        choice=wanted.choice,
        constants=constants or {},
        measured=measured,
        also=wanted.also,
    )
    return Decision(plan, form)


def decide_again(saved: Plan, model: Model) -> Decision:
    """The same for `model`, wherever that is now. Raises PlanError if it does not fit, FormatError."""
    check_plan_fits(saved, model)
    source = model.checkpoint.source
    plan = replace(saved, source=source.title, revision=source.revision)
    compensated = bool(plan.constants)
    return Decision(plan, choose_format(model, plan.dropped, plan.format, plan.engines, compensated=compensated))
