"""Weights whose numbers are not read here."""

from __future__ import annotations

from gatenorm_stream.errors import UnsupportedModelError

REMEDY = "give --layers, or --plan with the scores of the unquantised original"
ELSEWHERE = "use the unquantised safetensors form of this model"


class UnreadError(UnsupportedModelError):
    """`why` is the fact alone. What to do is not the same for those who score and those who run the model."""

    def __init__(self, why: str) -> None:
        self.why = why
        super().__init__(f"{why}; {ELSEWHERE}")
