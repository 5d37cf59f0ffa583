"""A pruned checkpoint and where it came from."""

import json
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Case:
    source: Path
    layers: tuple[int, ...]
    out: Path

    @property
    def named(self) -> tuple[str, str]:
        """Its family's model type, and what was pruned."""
        family = json.loads((self.source / "config.json").read_text())["model_type"]
        return family, f"{self.source.name}, layers {self.layers}"
