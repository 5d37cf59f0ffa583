"""The decision: from a model's scores to a plan."""

from __future__ import annotations

from gatenorm_stream.families.model import Model
from gatenorm_stream.formats.choice import FormatChoice, choose_format
from gatenorm_stream.formats.edit import Constants
from gatenorm_stream.planning.plan import Plan
from gatenorm_stream.scoring.readings import Reading
from gatenorm_stream.scoring.scores import LayerScore
from gatenorm_stream.scoring.selection import Choice, select


def make_plan(
    model: Model,
    scores: tuple[LayerScore, ...],
    choice: Choice,
    reading: Reading,
    format: str,
    engines: tuple[str, ...],
    constants: Constants | None = None,
) -> tuple[Plan, FormatChoice]:
    """The decision, from a model's scores. Raises SelectionError or FormatError.

    `constants`, if there are any, stand in the place of the attention that `choice` takes.
    """
    dropped = select(scores, choice)
    chosen = choose_format(model, dropped, format, engines, compensated=bool(constants))
    checkpoint = model.checkpoint
    plan = Plan(
        source=checkpoint.source.title,
        revision=checkpoint.source.revision,
        family=model.family.model_type,
        reading=reading,
        scores=scores,
        dropped=dropped,
        format=chosen.format.name,
        engines=engines,
        choice=choice,
        constants=constants or {},
    )
    return plan, chosen
