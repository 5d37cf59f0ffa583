"""An output is run from its own bytes, and its source beside it: what the pruning cost."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from os import PathLike
from typing import Any

from gatenorm_stream.errors import ComparisonError
from gatenorm_stream.families.model import Model
from gatenorm_stream.families.open import open_model
from gatenorm_stream.formats.merge_order import is_mended
from gatenorm_stream.measuring.forward import Losses, losses_of
from gatenorm_stream.measuring.measurement import perplexity
from gatenorm_stream.measuring.open import open_decoder
from gatenorm_stream.measuring.sample import Sample, read_sample
from gatenorm_stream.measuring.steps import steps_in_bytes
from gatenorm_stream.measuring.study import standard_error
from gatenorm_stream.sources.source import Source
from gatenorm_stream.work import Progress


@dataclass(frozen=True)
class MeasuredOutput:
    """Losses in nats a token. `pruned` are layers without attention; `against` names the source, if it was run."""

    model: str
    pruned: tuple[int, ...]
    text: str
    digest: str
    tokens: int
    loss: float
    against: str | None = None
    before: float | None = None
    error: float | None = None

    @property
    def perplexity(self) -> float:
        return perplexity(self.loss)

    @property
    def rise(self) -> float | None:
        return None if self.before is None else self.loss - self.before

    def to_json(self) -> dict[str, Any]:
        beside = {"name": self.against, "loss": self.before, "rise": self.rise, "error": self.error}
        return {
            "model": self.model,
            "pruned": list(self.pruned),
            "text": {"name": self.text, "blake3": self.digest},
            "tokens": self.tokens,
            "loss": self.loss,
            "perplexity": self.perplexity,
            "against": beside if self.against else None,
        }


def measure_output(
    model: Model,
    against: Source | None,
    text: str | PathLike[str] | None,
    tokens: int,
    *,
    threads: int | None = None,
    progress: Progress | None = None,
) -> MeasuredOutput:
    """Both are run on the tokens that choices are judged on, as the output cuts them. Closes `against`.

    Raises ComparisonError if the two cut the text into other tokens; UnsupportedModelError, TextError,
    CheckpointError.
    """
    sample = read_sample(model, text, tokens)
    losses = _losses(model, sample, threads, progress)
    found = partial(
        MeasuredOutput,
        model.checkpoint.source.title,
        model.pruned,
        sample.name,
        sample.digest,
        len(sample.texts.judging),
        float(losses.mean()),
    )
    if against is None:
        return found()
    with open_model(against) as source:
        theirs = read_sample(source, text, tokens)
        alike = theirs.texts.judging.tolist() == sample.texts.judging.tolist()
        if not alike and not is_mended(model.checkpoint.config, source.checkpoint.config):
            raise ComparisonError(f"{against.title} cuts the text into other tokens; give the source of the output")
        before = _losses(source, sample, threads, progress)
        return found(against.title, float(before.mean()), standard_error(losses - before))


def _losses(model: Model, sample: Sample, threads: int | None, progress: Progress | None) -> Losses:
    steps = steps_in_bytes(progress, model.checkpoint, "measuring", model.checkpoint.source.title)
    with open_decoder(model, threads=threads) as decoder:
        return losses_of(decoder, sample.texts.judging, steps)
