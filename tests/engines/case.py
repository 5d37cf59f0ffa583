"""A pruned checkpoint and where it came from."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Case:
    source: Path
    layers: tuple[int, ...]
    out: Path
