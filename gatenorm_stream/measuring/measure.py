"""A model is measured: scored, run, and judged with some of its attention gone."""

from __future__ import annotations

from dataclasses import dataclass
from os import PathLike

from gatenorm_stream.families.model import Model
from gatenorm_stream.measuring.measurement import MeasuredLayer, Measurement
from gatenorm_stream.measuring.on_text import passes_on_text
from gatenorm_stream.measuring.study import Criterion, study
from gatenorm_stream.scoring.readings import Reading, check_reading
from gatenorm_stream.scoring.score import scored
from gatenorm_stream.work import Progress


@dataclass(frozen=True)
class Saved:
    """Shares (0 to 1) of the whole model that one attention sublayer is, in the mean."""

    parameters: float
    cache: float
    bytes: float


def measure_model(
    model: Model,
    reading: Reading,
    text: str | PathLike[str] | None,
    tokens: int,
    draws: int | None,
    *,
    by: Criterion | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
) -> tuple[Measurement, Saved]:
    """Reads all its weights a few times, and never loads them.

    Raises UnsupportedModelError, with what to install, if it can't be run here; TextError; CheckpointError.
    """
    check_reading(reading)
    with passes_on_text(model, text, tokens, threads=threads, progress=progress) as (sample, passes):
        scores = scored(model, reading, threads=threads, progress=progress)
        work = model.checkpoint.parameters * tokens
        found = study(passes, scores, draws=draws, work=work, by=by)
    by_layer = {s.layer: s for s in found.sublayers}
    layers = (
        MeasuredLayer(s.layer, s.score, by_layer[s.layer].influence, by_layer[s.layer].constant) for s in scores
    )
    measurement = Measurement(
        model.checkpoint.source.title,
        reading,
        sample.name,
        sample.digest,
        len(sample.texts.judging),
        found.loss,
        tuple(layers),
        found.choices,
        found.passes,
    )
    return measurement, _saved(model)


def _saved(model: Model) -> Saved:
    tensors, count = model.checkpoint.tensors, len(model.attention)
    gone = [tensors[name] for a in model.attention for name in model.attention_tensors(a.layer)]
    parameters = sum(t.info.elements for t in gone) / model.checkpoint.parameters
    weights = sum(len(t.info.data) for t in gone) / model.checkpoint.weight_bytes
    return Saved(parameters / count, 1 / count, weights / count)
