"""The decision: scores, or a plan that was saved, become what will be done to a model."""

from __future__ import annotations

from dataclasses import dataclass, replace

from gatenorm_stream.families.model import Model
from gatenorm_stream.formats.choice import FormatChoice, choose_format
from gatenorm_stream.formats.edit import Constants
from gatenorm_stream.planning.plan import Plan, check_plan_fits
from gatenorm_stream.scoring.readings import Reading
from gatenorm_stream.scoring.scores import LayerScore
from gatenorm_stream.scoring.selection import Choice, select


@dataclass(frozen=True)
class Decision:
    """The plan, and why its format was chosen."""

    plan: Plan
    form: FormatChoice


def decide_by_scores(
    model: Model,
    scores: tuple[LayerScore, ...],
    choice: Choice,
    reading: Reading,
    format: str,
    engines: tuple[str, ...],
    constants: Constants | None = None,
) -> Decision:
    """`constants`, if there are any, stand in the place of the attention that `choice` takes.

    Raises SelectionError or FormatError.
    """
    dropped = select(scores, choice)
    form = choose_format(model, dropped, format, engines, compensated=bool(constants))
    source = model.checkpoint.source
    plan = Plan(
        source=source.title,
        revision=source.revision,
        family=model.family.model_type,
        reading=reading,
        scores=scores,
        dropped=dropped,
        format=form.format.name,
        engines=engines,
        choice=choice,
        constants=constants or {},
    )
    return Decision(plan, form)


def decide_again(saved: Plan, model: Model) -> Decision:
    """The same for `model`, wherever that is now. Raises PlanError if it does not fit, FormatError."""
    check_plan_fits(saved, model)
    source = model.checkpoint.source
    plan = replace(saved, source=source.title, revision=source.revision)
    compensated = bool(plan.constants)
    return Decision(plan, choose_format(model, plan.dropped, plan.format, plan.engines, compensated=compensated))
