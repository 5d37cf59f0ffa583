"""What a user asked for becomes a decision: the model is scored, and run if need be."""

from __future__ import annotations

from collections.abc import Sequence

from gatenorm_stream.families.model import Model
from gatenorm_stream.planning.decide import COMPENSATE, Decision, Wanted, check_by, decide_by_scores
from gatenorm_stream.planning.plan import unscored
from gatenorm_stream.scoring.readings import check_reading
from gatenorm_stream.scoring.score import scored
from gatenorm_stream.scoring.scores import LayerScore
from gatenorm_stream.work import Progress


def decide_for(
    model: Model,
    wanted: Wanted,
    *,
    scores: Sequence[LayerScore] | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Decision:
    """With `scores`, which are the model's by `wanted.reading`, it is not scored again.

    Raises SelectionError, FormatError, TextError; UnsupportedModelError where the model must be run and can't be;
    CheckpointError for damage.
    """
    check_reading(wanted.reading)
    check_by(wanted.by)
    wanted.choice.check()
    compensate = _compensates(model, wanted)
    if wanted.by == "gate-norm" and not compensate and wanted.choice.max_rise is None:
        if scores is None and model.unread and wanted.choice.layers is not None:
            return decide_by_scores(model, unscored(a.layer for a in model.attention), wanted, scored=False)
        found = scores or scored(model, wanted.reading, threads=threads, progress=progress)
        return decide_by_scores(model, tuple(found), wanted)
    return _decide_by_measuring(model, wanted, scores, compensate, threads, progress)


def _decide_by_measuring(
    model: Model,
    wanted: Wanted,
    scores: Sequence[LayerScore] | None,
    compensate: bool,
    threads: int | None,
    progress: Progress | None,
) -> Decision:
    from gatenorm_stream.measuring.on_text import passes_on_text
    from gatenorm_stream.planning.decide_by_measuring import decide_by_measuring

    run = passes_on_text(model, wanted.text, wanted.tokens, threads=threads, progress=progress)
    with run as (sample, passes):
        if wanted.by == "influence":
            scores = None
        elif scores is None:
            scores = scored(model, wanted.reading, threads=threads, progress=progress)
        return decide_by_measuring(model, passes, sample, scores, wanted, compensate=compensate)


def _compensates(model: Model, wanted: Wanted) -> bool:
    if wanted.compensate is not None:
        return wanted.compensate
    if not COMPENSATE:
        return False
    from gatenorm_stream.measuring.numpy_decoder import numpy_obstacle

    return numpy_obstacle(model) is None
