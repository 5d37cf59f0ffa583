"""What safetensors and GGUF share: tensors, the files that hold them, and the checkpoint that they make."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Self

from gatenorm_stream.errors import CheckpointError
from gatenorm_stream.names import CONFIG
from gatenorm_stream.sources.ranges import ByteRange, aligned
from gatenorm_stream.sources.source import File, Kind, Source

MOST_TENSORS = 1 << 18
"""Of a model, in all its files: Kimi K2 in four bits has some 210,000. Each takes up to 5 kB of memory."""


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One entry of a header; `data` counts from the end of the header."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    data: ByteRange

    @property
    def elements(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True)
class Header:
    """A validated header; `tensors` stand in the order of their bytes."""

    tensors: tuple[TensorInfo, ...]
    metadata: Mapping[str, str] = field(default_factory=dict)
    data_start: int = 0


@dataclass(frozen=True)
class Shard:
    name: str
    file: File
    header: Header


@dataclass(frozen=True)
class Tensor:
    """A tensor of the checkpoint; `range` is absolute within `shard`'s file."""

    info: TensorInfo
    shard: Shard

    @property
    def name(self) -> str:
        return self.info.name

    @property
    def dtype(self) -> str:
        return self.info.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        return self.info.shape

    @property
    def range(self) -> ByteRange:
        start = self.shard.header.data_start
        return ByteRange(start + self.info.data.start, start + self.info.data.stop)


@dataclass(frozen=True)
class Checkpoint:
    """`index_metadata` is None for a checkpoint without an index."""

    source: Source
    config: Mapping[str, Any]
    shards: tuple[Shard, ...]
    tensors: Mapping[str, Tensor]
    index_metadata: Mapping[str, Any] | None
    remarks: tuple[str, ...] = ()
    """What is odd in it and does no harm, a line each."""

    @property
    def kind(self) -> Kind:
        return self.source.kind

    @cached_property
    def parts(self) -> Mapping[str, tuple[str, ...]]:
        """By module, the last parts of the names of its own tensors."""
        found: dict[str, list[str]] = {}
        for name in self.tensors:
            module, _, part = name.rpartition(".")
            found.setdefault(module, []).append(part)
        return {module: tuple(parts) for module, parts in found.items()}

    @property
    def config_where(self) -> str:
        """The config's file, as messages name it."""
        return f"{self.source.title}/{CONFIG}"

    @property
    def parameters(self) -> int:
        return sum(t.info.elements for t in self.tensors.values())

    @property
    def weight_bytes(self) -> int:
        return sum(len(t.info.data) for t in self.tensors.values())

    @property
    def unfetched_bytes(self) -> int:
        """Of the shards, what is not on this machine yet."""
        parts = (part for s in self.shards for part in s.file.segments(ByteRange(0, s.file.size)))
        return sum(len(where) for where, descriptor in parts if descriptor is None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.source.close()


def counted(shards: Iterable[Shard], title: str) -> Iterator[Shard]:
    """The same; raises CheckpointError as soon as they hold more tensors than any model."""
    total = 0
    for shard in shards:
        total += len(shard.header.tensors)
        check_number(total, title)
        yield shard


def check_number(tensors: int, title: str) -> None:
    if tensors > MOST_TENSORS:
        raise CheckpointError(
            f"{title} has {tensors} tensors or more, and {MOST_TENSORS} are the most that are taken: no known "
            "model has as many; restore it"
        )


def tensors_in_shards(shards: tuple[Shard, ...]) -> dict[str, Tensor]:
    """By their names. Raises CheckpointError if one stands twice."""
    tensors: dict[str, Tensor] = {}
    for shard in shards:
        for info in shard.header.tensors:
            if info.name in tensors:
                raise CheckpointError(
                    f"{info.name} stands in both {tensors[info.name].shard.name} and {shard.name}; "
                    "the checkpoint is damaged, download it again"
                )
            tensors[info.name] = Tensor(info, shard)
    return tensors


def with_offsets(tensors: Iterable[TensorInfo], align: int = 1) -> tuple[TensorInfo, ...]:
    """The same tensors one behind the other, each at a multiple of `align` bytes."""
    placed, position = [], 0
    for t in tensors:
        placed.append(TensorInfo(t.name, t.dtype, t.shape, ByteRange(position, position + len(t.data))))
        position = aligned(placed[-1].data.stop, align)
    return tuple(placed)


def shown(value: object) -> str:
    """As it stands in a message, at most 80 characters."""
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
