"""Passes of a model over a text: what can fail without the weights comes before they are fetched."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike

from gatenorm_stream.families.model import Model
from gatenorm_stream.families.unread import UnreadError
from gatenorm_stream.measuring.kept import keep, keep_small_files
from gatenorm_stream.measuring.open import open_decoder
from gatenorm_stream.measuring.sample import Sample, read_sample
from gatenorm_stream.measuring.steps import steps_of_passes
from gatenorm_stream.measuring.study import Passes
from gatenorm_stream.work import Progress


@contextmanager
def passes_on_text(
    model: Model,
    text: str | PathLike[str] | None,
    tokens: int,
    *,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Iterator[tuple[Sample, Passes]]:
    """Raises UnsupportedModelError, with what to install, if it can't be run here; TextError; CheckpointError; and
    as `keep` does.
    """
    if model.unread:
        raise UnreadError(model.unread)
    keep_small_files(model.checkpoint)
    sample = read_sample(model, text, tokens)
    with open_decoder(model, threads=threads) as decoder:  # first: it says if the model can't be run
        keep(model.checkpoint, progress)
        yield sample, Passes(decoder, sample.texts, model.hidden, steps_of_passes(progress, model.checkpoint))
