"""A record as it may leave the machine: names of files and models, not where they lie."""

from __future__ import annotations

from dataclasses import replace
from pathlib import PurePath

from gatenorm_stream.measuring.text import BUILT_IN_NAME
from gatenorm_stream.planning.plan import Plan

SOMEWHERE = "a local model"


def without_paths(plan: Plan) -> Plan:
    """A repository's name stays, as far as it is known to be one: by its revision, or by its form."""
    measured = plan.measured and replace(
        plan.measured,
        text=plan.measured.text if plan.measured.text == BUILT_IN_NAME else _base(plan.measured.text),
        elsewhere=plan.measured.elsewhere and _model(plan.measured.elsewhere),
    )
    return replace(
        plan,
        source=plan.source if plan.revision else _base(plan.source),
        scores_of=plan.scores_of and _model(plan.scores_of),
        measured=measured,
    )


def _model(title: str) -> str:
    path = PurePath(title)
    local = path.is_absolute() or title.startswith((".", "~")) or len(path.parts) != 2
    return _base(title) if local else title


def _base(path: str) -> str:
    return PurePath(path).name or SOMEWHERE
