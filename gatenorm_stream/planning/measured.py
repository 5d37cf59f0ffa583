"""What was measured before a plan was made, as the plan records it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

LARGEST = 1e40
"""Of losses, their error and influence: more than float32 can make them."""


@dataclass(frozen=True)
class Measured:
    """Losses in nats a token, of the model and of what the plan makes of it, on `tokens` of the text.

    Chosen, and constants taken, was on as many other tokens of it. `digest` is the text's (BLAKE3), `error` the
    standard error of the rise. `influence` has a number for each layer that has a score.

    `fingerprint` tells which model was measured. In a plan for another one, `elsewhere` names where it was found.
    """

    text: str
    digest: str
    tokens: int
    loss: float
    pruned: float
    error: float
    influence: tuple[float, ...]
    fingerprint: str
    elsewhere: str | None = None

    @property
    def rise(self) -> float:
        return self.pruned - self.loss

    def to_json(self) -> dict[str, Any]:
        found = {**asdict(self), "influence": list(self.influence)}
        return found if self.elsewhere else {k: v for k, v in found.items() if k != "elsewhere"}


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
            "fingerprint": str(fingerprint),
            **rest,
        } if len(influence) == layers and type(tokens) is int and _names_a_model(rest):
            numbers = (loss, pruned, error, *influence)
            if tokens > 0 and all(type(n) is float and 0 <= n <= LARGEST for n in numbers):
                found = text, digest, tokens, loss, pruned, error, tuple(influence), fingerprint
                return Measured(*found, str(rest["elsewhere"]) if rest else None)
    return None


def _names_a_model(rest: Mapping[Any, Any]) -> bool:
    """Whether there is nothing else but, perhaps, `elsewhere`."""
    return not rest or (
        rest.keys() == {"elsewhere"} and isinstance(rest["elsewhere"], str) and rest["elsewhere"] != ""
    )
