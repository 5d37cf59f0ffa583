"""The heads of an attention sublayer."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Heads:
    """Query head h uses key head h // group (grouped-query attention); each is `dim` wide."""

    queries: int
    keys: int
    dim: int

    @property
    def group(self) -> int:
        return self.queries // self.keys
