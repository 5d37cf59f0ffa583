"""What a verification found."""

from __future__ import annotations

from dataclasses import dataclass

from gatenorm_stream.planning.plan import Plan


@dataclass(frozen=True)
class Verified:
    """What was found in order. `against` names the source that every kept tensor was compared with.

    Of `tensors`, so many are `computed`: the plan says what they hold, not the source (constants, zeros). Known
    only `against` the source.
    """

    plan: Plan
    files: int
    tensors: int
    bytes: int
    against: str | None = None
    computed: int = 0
