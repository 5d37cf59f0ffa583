"""The names of the readings: three of the Gate-Norm formula, and one that is no Gate-Norm."""

from __future__ import annotations

from typing import Literal, get_args

Reading = Literal["per-head", "joint", "stored", "value-output-product"]
READINGS: tuple[Reading, ...] = get_args(Reading)
EXPERIMENTAL: Reading = "value-output-product"


def called(reading: str, quote: str = "") -> str:
    """As outputs name it."""
    named = f"reading {quote}{reading}{quote}"
    return f"{named} (experimental, not Gate-Norm)" if reading == EXPERIMENTAL else f"Gate-Norm, {named}"
