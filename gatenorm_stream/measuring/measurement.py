"""What was measured of a model, as data."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

By: TypeAlias = Literal["gate-norm", "influence", "random"]


def perplexity(loss: float) -> float:
    """Of a loss in nats a token; as large as a float can be where it would be larger."""
    return math.exp(min(loss, math.log(sys.float_info.max)))


@dataclass(frozen=True)
class MeasuredLayer:
    """`score` is Gate-Norm's; `influence` is 1 - cosine of the stream before and after attention; `constant` is the
    share of what attention puts out that is the same at every token (0 to 1).
    """

    layer: int
    score: float
    influence: float
    constant: float


@dataclass(frozen=True)
class MeasuredChoice:
    """What a choice costs: `loss` in nats a token, and its `rise` over the unpruned model's.

    `error` is the standard error of the rise, as far as the tokens that were judged on tell: each token's rise is
    taken as drawn by itself.
    """

    by: By
    dropped: tuple[int, ...]
    compensated: bool
    loss: float
    rise: float
    error: float


@dataclass(frozen=True)
class Measurement:
    """`tokens` for choosing, and as many others for judging; `loss` is the unpruned model's on the latter.

    `passes` says how often all weights were read.
    """

    model: str
    reading: str
    text: str
    digest: str
    tokens: int
    loss: float
    layers: tuple[MeasuredLayer, ...]
    choices: tuple[MeasuredChoice, ...]
    passes: int

    @property
    def perplexity(self) -> float:
        return perplexity(self.loss)

    def of(self, by: By, count: int, compensated: bool) -> tuple[MeasuredChoice, ...]:
        """The choices of so many layers by this criterion; several only of random ones."""
        return tuple(c for c in self.choices if (c.by, len(c.dropped), c.compensated) == (by, count, compensated))

    @property
    def counts(self) -> tuple[int, ...]:
        return tuple(sorted({len(c.dropped) for c in self.choices}))

    def to_json(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "reading": self.reading,
            "text": {"name": self.text, "blake3": self.digest},
            "tokens": self.tokens,
            "loss": self.loss,
            "perplexity": self.perplexity,
            "passes": self.passes,
            "layers": [
                {"layer": m.layer, "score": m.score, "influence": m.influence, "constant": m.constant}
                for m in self.layers
            ],
            "choices": [
                {
                    "by": c.by,
                    "dropped": list(c.dropped),
                    "compensated": c.compensated,
                    "loss": c.loss,
                    "rise": c.rise,
                    "error": c.error,
                }
                for c in self.choices
            ],
        }
