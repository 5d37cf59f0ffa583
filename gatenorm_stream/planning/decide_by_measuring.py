"""The decision where the model is run: by influence, with constants, or as far as the loss may rise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from gatenorm_stream.checkpoint.fingerprint import fingerprint
from gatenorm_stream.errors import FormatError, SelectionError
from gatenorm_stream.families.model import Model
from gatenorm_stream.formats.choice import choose_format
from gatenorm_stream.formats.constants import PLAIN
from gatenorm_stream.measuring.sample import Sample
from gatenorm_stream.measuring.study import Asked, Judgement, Passes, by_influence
from gatenorm_stream.measuring.variants import Variant
from gatenorm_stream.planning.decide import Decision, Wanted, decide_by_scores
from gatenorm_stream.planning.measured import Measured
from gatenorm_stream.scoring.scores import LayerScore
from gatenorm_stream.scoring.selection import select, select_up_to_half


def decide_by_measuring(
    model: Model,
    passes: Passes,
    sample: Sample,
    scores: Sequence[LayerScore] | None,
    wanted: Wanted,
    *,
    compensate: bool,
) -> Decision:
    """By `scores`, or by influence if there are none.

    With `wanted.choice.max_rise`, as many go as leave the measured rise at that or below. Raises SelectionError, or
    FormatError, as far as the headers tell before the model is run.
    """
    compensate = _holds_constants(model, scores, wanted, compensate)
    ranked = tuple(scores) if scores else by_influence(passes.sublayers)
    limit = wanted.choice.max_rise
    choices = [select(ranked, wanted.choice)] if limit is None else select_up_to_half(ranked, wanted.choice)
    judged = passes.judge([Asked(wanted.by, Variant(dropped, compensate)) for dropped in choices])
    chosen, following = (judged[0], None) if limit is None else _allowed(judged, limit)
    measured = Measured(
        sample.name,
        sample.digest,
        len(sample.texts.judging),
        passes.loss,
        chosen.choice.loss,
        chosen.choice.error,
        tuple(s.influence for s in passes.sublayers),
        fingerprint(model.checkpoint),
    )
    constants = {layer: np.asarray(v, "<f4").tobytes() for layer, v in chosen.constants.items()}
    decided = decide_by_scores(model, ranked, wanted, chosen.choice.dropped, constants=constants, measured=measured)
    return replace(decided, following=following.choice.rise) if following else decided


def _holds_constants(model: Model, scores: Sequence[LayerScore] | None, wanted: Wanted, compensate: bool) -> bool:
    """`compensate`, unless by default constants would be wanted where the format holds none.

    Raises FormatError if they were asked for, or the format can't be had at all.
    """
    known = scores or wanted.choice.layers is not None  # else any one layer stands for those that will be chosen
    ranked = scores or [LayerScore(a.layer, 0, ()) for a in model.attention]
    one = replace(wanted.choice, max_rise=None, drop=1) if wanted.choice.max_rise is not None else wanted.choice
    dropped = select(ranked, one) if known else (model.attention[-1].layer,)
    form = choose_format(model, dropped, wanted.format, wanted.engines, compensated=compensate)
    if compensate and not form.holds_constants and wanted.compensate:
        raise FormatError(
            f"{form.format.name} holds no constants in this model, whose output projections have no bias; use "
            f"another --format, or prune {PLAIN}"
        )
    return compensate and form.holds_constants


def _allowed(judged: Sequence[Judgement], max_rise: float) -> tuple[Judgement, Judgement | None]:
    """The last choice before the first whose rise is above `max_rise`, and that one."""
    above = next((n for n, j in enumerate(judged) if j.choice.rise > max_rise), len(judged))
    if above == 0:
        rise = judged[0].choice.rise
        raise SelectionError(
            f"the first sublayer to go already costs {rise:.3f} nats a token, more than --max-rise {max_rise:g}; "
            "allow more"
        )
    return judged[above - 1], judged[above] if above < len(judged) else None
