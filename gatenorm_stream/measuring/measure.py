"""A model is measured: scored, run, and judged with some of its attention gone."""

from __future__ import annotations

from dataclasses import dataclass
from os import PathLike

from gatenorm_stream.families.model import Model
from gatenorm_stream.families.unread import UnreadError
from gatenorm_stream.measuring.kept import keep, keep_small_files
from gatenorm_stream.measuring.measurement import MeasuredLayer, Measurement
from gatenorm_stream.measuring.open import open_decoder
from gatenorm_stream.measuring.sample import read_sample
from gatenorm_stream.measuring.steps import steps_of_passes
from gatenorm_stream.measuring.study import Criterion, Passes, study
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
    if model.unread:
        raise UnreadError(model.unread)
    keep_small_files(model.checkpoint)
    sample = read_sample(model, text, tokens)
    with open_decoder(model, threads=threads) as decoder:  # first: it says if the model can't be run
        keep(model.checkpoint, progress)
        scores = scored(model, reading, threads=threads, progress=progress)
        passes = Passes(decoder, sample.texts, model.hidden, steps_of_passes(progress, model.checkpoint))
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
