"""The names of the readings: three of the Gate-Norm formula, and one that is no Gate-Norm."""

from __future__ import annotations

from typing import Literal, get_args

from gatenorm_stream.errors import GateNormError

Reading = Literal["per-head", "joint", "stored", "value-output-product"]
READINGS: tuple[Reading, ...] = get_args(Reading)
EXPERIMENTAL: Reading = "value-output-product"


def check_reading(reading: str) -> None:
    """Raises GateNormError for one that there is not."""
    if reading not in READINGS:
        raise GateNormError(f"there is no reading {reading}; give one of {', '.join(READINGS)}")


def called(reading: str, quote: str = "") -> str:
    """As outputs name it."""
    named = f"reading {quote}{reading}{quote}"
    return f"{named} (experimental, not Gate-Norm)" if reading == EXPERIMENTAL else f"Gate-Norm, {named}"
