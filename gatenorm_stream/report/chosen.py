"""What chose the layers of a plan, in a few words."""

from __future__ import annotations

from gatenorm_stream.planning.plan import Plan
from gatenorm_stream.scoring.readings import describe_reading

UNSCORED = "not scored: the weights are packed, and the layers were named"


def chosen_by(plan: Plan, quote: str = "") -> str:
    if not plan.scored:
        return UNSCORED
    of = f", scores of {plan.scores_of}" if plan.scores_of else ""
    return f"{describe_reading(plan.reading, quote)}{of}"
