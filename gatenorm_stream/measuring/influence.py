"""The influence of each attention sublayer, from one run of the model, where nothing is chosen yet."""

from __future__ import annotations

from dataclasses import dataclass
from os import PathLike

from gatenorm_stream.families.model import Model
from gatenorm_stream.measuring.forward import Sublayer
from gatenorm_stream.measuring.on_text import passes_on_text
from gatenorm_stream.measuring.sample import Sample
from gatenorm_stream.measuring.study import by_influence
from gatenorm_stream.scoring.scores import LayerScore
from gatenorm_stream.work import Progress


@dataclass(frozen=True)
class Influences:
    """On the part of `sample` that is to choose on."""

    sample: Sample
    sublayers: tuple[Sublayer, ...]

    @property
    def tokens(self) -> int:
        return len(self.sample.texts.choosing)

    @property
    def scores(self) -> tuple[LayerScore, ...]:
        """Influence in the place of scores."""
        return by_influence(self.sublayers)


def measure_influence(
    model: Model,
    text: str | PathLike[str] | None,
    tokens: int,
    *,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Influences:
    """Reads all weights of the layers once.

    Raises UnsupportedModelError, with what to install, if it can't be run here; TextError; CheckpointError.
    """
    with passes_on_text(model, text, tokens, threads=threads, progress=progress) as (sample, passes):
        return Influences(sample, passes.sublayers)
