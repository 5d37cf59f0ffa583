"""Where the tensors of a layer's modules are looked for."""

from __future__ import annotations

from dataclasses import dataclass

from gatenorm_stream.checkpoint.tensors import Checkpoint
from gatenorm_stream.families.family import Config


@dataclass(frozen=True)
class Scope:
    """`where` is the config.json, `prefix` stands before the names of tensors."""

    checkpoint: Checkpoint
    config: Config
    where: str
    prefix: str

    def parts(self, module: str) -> tuple[str, ...]:
        """The last parts of the names of this module's own tensors."""
        return self.checkpoint.parts.get(f"{self.prefix}{module}", ())
