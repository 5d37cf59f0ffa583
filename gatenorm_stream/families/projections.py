"""Where the heads of a query or key projection stand in the tensors that hold them."""

from __future__ import annotations

from dataclasses import dataclass

from gatenorm_stream.checkpoint.open import Tensor
from gatenorm_stream.checkpoint.ranges import ByteRange, coalesce
from gatenorm_stream.families.family import Packing
from gatenorm_stream.heads import Heads


@dataclass(frozen=True)
class Weight:
    """A stored matrix. Each `block` of it (rows, columns) is multiplied by a number of `scale`, if there is one."""

    tensor: Tensor
    scale: Tensor | None = None
    block: tuple[int, int] = (1, 1)

    @property
    def row_bytes(self) -> int:
        return len(self.tensor.range) // self.tensor.shape[0]

    def rows(self, start: int, stop: int) -> ByteRange:
        return self.tensor.range.part(start * self.row_bytes, stop * self.row_bytes)


@dataclass(frozen=True)
class Latent:
    """`down`, (rank + shared, hidden), makes the latent; its last `shared` rows are in every head as they are."""

    down: Weight
    shared: int = 0


@dataclass(frozen=True)
class Projection:
    """Head h is the `dim` rows of `weight` from `starts[h]` on (columns if `transposed`).

    With `latent`, these rows act on the latent instead of the hidden state, and a head is they times the latent's
    rank rows, then its shared rows.
    """

    weight: Weight
    starts: tuple[int, ...]
    dim: int
    transposed: bool = False
    latent: Latent | None = None

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """All that is read for it."""
        weights = (self.weight, self.latent.down) if self.latent else (self.weight,)
        return tuple(t for w in weights for t in (w.tensor, w.scale) if t)

    @property
    def ranges(self) -> tuple[tuple[Tensor, ByteRange], ...]:
        """All bytes that are read for it; of a transposed weight, all that it has."""
        weight = self.weight.tensor
        own: tuple[ByteRange, ...] = (weight.range,)
        if not self.transposed:
            own = coalesce([self.weight.rows(start, start + self.dim) for start in self.starts])
        return (*((weight, r) for r in own), *((t, t.range) for t in self.tensors if t is not weight))

    @property
    def bytes(self) -> int:
        return sum(len(r) for _, r in self.ranges)


def starts(heads: Heads, packing: Packing, gated: bool = False) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The first row of each query head and of each key head."""
    if packing == "groups":
        group = range(0, heads.keys * (heads.group + 2), heads.group + 2)
        queries = tuple((g + h) * heads.dim for g in group for h in range(heads.group))
        return queries, tuple((g + heads.group) * heads.dim for g in group)
    first_key = heads.queries if packing == "blocks" else 0
    queries = tuple(h * heads.dim * (2 if gated else 1) for h in range(heads.queries))
    return queries, tuple((first_key + g) * heads.dim for g in range(heads.keys))


def rows(heads: Heads, packing: Packing, gated: bool = False) -> tuple[int, int]:
    """How many rows the tensors that hold the queries and the keys must have."""
    if packing != "separate":
        fused = (heads.queries + 2 * heads.keys) * heads.dim
        return fused, fused
    return heads.queries * heads.dim * (2 if gated else 1), heads.keys * heads.dim
