"""What chose the layers of a plan, in a few words."""

from __future__ import annotations

from collections.abc import Callable

from gatenorm_stream.planning.plan import Plan
from gatenorm_stream.scoring.readings import describe_reading

UNSCORED = "not scored: the weights are packed, and the layers were named"


def chosen_by(plan: Plan, *, code: Callable[[str], str] | None = None) -> str:
    """In Markdown with `code`, which makes a span of a name."""
    if not plan.scored:
        return UNSCORED
    name = plan.scores_of and (code(plan.scores_of) if code else plan.scores_of)
    of = f", scores of {name}" if name else ""
    return f"{describe_reading(plan.reading, '`' if code else '')}{of}"
