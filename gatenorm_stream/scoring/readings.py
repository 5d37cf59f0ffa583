"""The names of the three readings of the Gate-Norm formula."""

from __future__ import annotations

from typing import Literal, get_args

from gatenorm_stream.errors import GateNormError

Reading = Literal["per-head", "joint", "stored"]
READINGS: tuple[Reading, ...] = get_args(Reading)


def check_reading(reading: str) -> None:
    """Raises GateNormError for one that there is not."""
    if reading not in READINGS:
        raise GateNormError(f"there is no reading {reading}; give one of {', '.join(READINGS)}")


def describe_reading(reading: str | None, quote: str = "") -> str:
    """As outputs name what chose: a reading of Gate-Norm, or without one influence."""
    return f"Gate-Norm, reading {quote}{reading}{quote}" if reading else "block influence, measured"
