"""Where the heads of a projection stand in the tensors that hold them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from gatenorm_stream.checkpoint.tensors import Tensor
from gatenorm_stream.families.family import Packing
from gatenorm_stream.families.heads import Heads
from gatenorm_stream.sources.ranges import ByteRange, coalesce


@dataclass(frozen=True)
class Weight:
    """A stored matrix. Each `block` of it (rows, columns) is multiplied by a number of `scale`, if there is one.

    `unread` says why its numbers can't be read, where they can't; `tensor` is then anything that holds them.
    """

    tensor: Tensor
    scale: Tensor | None = None
    block: tuple[int, int] = (1, 1)
    unread: str | None = None

    @property
    def row_bytes(self) -> int:
        return len(self.tensor.range) // self.tensor.shape[0]

    def rows(self, start: int, stop: int) -> ByteRange:
        return self.tensor.range.part(start * self.row_bytes, stop * self.row_bytes)


@dataclass(frozen=True)
class Latent:
    """The first `rank` rows of `down`, (out, hidden), make the latent; the next `shared` are in every head."""

    down: Weight
    rank: int
    shared: int = 0

    @property
    def range(self) -> ByteRange:
        return self.down.rows(0, self.rank + self.shared)


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

    def rows_of(self, heads: range) -> tuple[ByteRange, ...]:
        """Where the rows of these heads stand, if it is not `transposed`."""
        starts = (self.starts[head] for head in heads)
        return coalesce(self.weight.rows(start, start + self.dim) for start in starts)

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
            own = self.rows_of(range(len(self.starts)))
        parts = [(weight, r) for r in own]
        if self.latent:
            parts.append((self.latent.down.tensor, self.latent.range))
        scales = [w.scale for w in (self.weight, self.latent.down if self.latent else None) if w]
        return (*parts, *((t, t.range) for t in scales if t))

    @property
    def bytes(self) -> int:
        return sum(len(r) for _, r in self.ranges)


Starts: TypeAlias = tuple[int, ...]


def starts(heads: Heads, packing: Packing, gated: bool = False) -> tuple[Starts, Starts]:
    """The first row of each query head and of each key head."""
    if packing == "groups":
        group = range(0, heads.keys * (heads.group + 2), heads.group + 2)
        queries = tuple((g + h) * heads.dim for g in group for h in range(heads.group))
        return queries, tuple((g + heads.group) * heads.dim for g in group)
    first = heads.queries if packing == "blocks" else 0
    queries = tuple(h * heads.dim * (2 if gated else 1) for h in range(heads.queries))
    return queries, tuple((first + g) * heads.dim for g in range(heads.keys))


def rows(heads: Heads, packing: Packing, gated: bool = False) -> tuple[int, int]:
    """How many rows the tensors that hold the queries and the keys must have."""
    if packing != "separate":
        fused = (heads.queries + 2 * heads.keys) * heads.dim
        return fused, fused
    return heads.queries * heads.dim * (2 if gated else 1), heads.keys * heads.dim
