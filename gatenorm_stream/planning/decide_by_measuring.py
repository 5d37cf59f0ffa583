"""The decision where the model is run: by influence, with constants, or as far as the loss may rise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from gatenorm_stream.errors import SelectionError
from gatenorm_stream.families.model import Model
from gatenorm_stream.formats.choice import choose_format
from gatenorm_stream.measuring.decoder import Decoder
from gatenorm_stream.measuring.forward import Variant
from gatenorm_stream.measuring.sample import Sample
from gatenorm_stream.measuring.study import Asked, Judgement, Passes, Steps, by_influence
from gatenorm_stream.planning.decide import Decision, Wanted, decide_by_scores
from gatenorm_stream.planning.measured import Measured
from gatenorm_stream.scoring.scores import LayerScore
from gatenorm_stream.scoring.selection import select_up_to

MOST = 1 / 2
"""Share of the sublayers that `max_rise` looks at: what is left without more is another model."""


def decide_by_measuring(
    model: Model,
    decoder: Decoder,
    sample: Sample,
    scores: Sequence[LayerScore] | None,
    wanted: Wanted,
    *,
    compensate: bool,
    steps: Steps = lambda number, done, total: None,
) -> Decision:
    """By `scores`, or by influence if there are none.

    With `wanted.max_rise`, as many go as leave the measured rise of the choice below that. Raises
    SelectionError, or FormatError before the model is run.
    """
    last = model.attention[-1].layer
    choose_format(model, (last,), wanted.format, wanted.engines, compensated=compensate)
    passes = Passes(decoder, sample.texts, model.hidden, steps)
    ranked = tuple(scores) if scores else by_influence(passes.sublayers)
    most = None if wanted.max_rise is None else max(1, int(MOST * len(ranked)))
    choices = select_up_to(ranked, wanted.choice, most)
    judged = passes.judge([Asked(wanted.by, Variant(dropped, compensate)) for dropped in choices])
    chosen, following = _allowed(judged, wanted.max_rise)
    measured = Measured(
        sample.name,
        sample.digest,
        len(sample.texts.judging),
        passes.loss,
        chosen.choice.loss,
        chosen.choice.error,
        tuple(s.influence for s in passes.sublayers),
    )
    constants = {layer: np.asarray(v, "<f4").tobytes() for layer, v in chosen.constants.items()}
    decided = decide_by_scores(model, ranked, wanted, chosen.choice.dropped, constants=constants, measured=measured)
    return replace(decided, following=following.choice.rise) if following else decided


def _allowed(judged: Sequence[Judgement], max_rise: float | None) -> tuple[Judgement, Judgement | None]:
    """The last choice before the first whose rise is above `max_rise`, and that one."""
    if max_rise is None:
        (only,) = judged
        return only, None
    above = next((n for n, j in enumerate(judged) if j.choice.rise > max_rise), len(judged))
    if above == 0:
        rise = judged[0].choice.rise
        raise SelectionError(
            f"the best single sublayer already costs {rise:.3f} nats a token, more than --max-rise {max_rise:g}; "
            "allow more"
        )
    return judged[above - 1], judged[above] if above < len(judged) else None
