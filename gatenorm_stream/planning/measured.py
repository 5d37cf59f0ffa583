"""What was measured before a plan was made, as the plan records it."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Measured:
    """Losses in nats a token, of the model and of what the plan makes of it, on `tokens` of the text.

    Chosen, and constants taken, was on as many other tokens of it. `digest` is the text's (BLAKE3), `error` the
    standard error of the rise. `influence` has a number for each layer that has a score.
    """

    text: str
    digest: str
    tokens: int
    loss: float
    pruned: float
    error: float
    influence: tuple[float, ...]

    @property
    def rise(self) -> float:
        return self.pruned - self.loss

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "influence": list(self.influence)}


def read_measured(given: Any, layers: int) -> Measured | None:
    """What `to_json` gave of a plan with scores of so many layers; None if `given` is anything else."""
    match given:
        case {
            "text": str(text),
            "digest": str(digest),
            "tokens": int(tokens),
            "loss": float(loss),
            "pruned": float(pruned),
            "error": float(error),
            "influence": [*influence],
        } if len(given) == 7 and len(influence) == layers and type(tokens) is int:
            numbers = (loss, pruned, error, *influence)
            if all(type(n) is float and math.isfinite(n) for n in numbers):
                return Measured(text, digest, tokens, loss, pruned, error, tuple(influence))
    return None
