"""The three readings of the Gate-Norm formula; `gate_norm` defines and computes them."""

from __future__ import annotations

from typing import Literal, get_args

Reading = Literal["per-head", "joint", "stored"]
READINGS: tuple[Reading, ...] = get_args(Reading)
