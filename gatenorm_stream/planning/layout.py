"""Which bytes of the source make which file of the output, as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from gatenorm_stream.checkpoint.tensors import Tensor, TensorInfo
from gatenorm_stream.sources.ranges import ByteRange
from gatenorm_stream.sources.source import File, Kind


@dataclass(frozen=True)
class Copied:
    """Bytes taken from the source as they are."""

    file: File
    range: ByteRange

    def __len__(self) -> int:
        return len(self.range)


@dataclass(frozen=True)
class Zeros:
    count: int

    def __len__(self) -> int:
        return self.count


@dataclass(frozen=True)
class Interleaved:
    """Rows of `row_bytes` each, of which the first half takes the even places and the second half the odd ones."""

    file: File
    range: ByteRange
    row_bytes: int

    def __len__(self) -> int:
        return len(self.range)

    def read(self) -> bytes:
        """Raises CheckpointError as the file's `read` does."""
        rows = memoryview(self.file.read(self.range))
        half, step = len(self) // 2, self.row_bytes
        return b"".join(rows[at : at + step] for i in range(0, half, step) for at in (i, half + i))


Piece: TypeAlias = Copied | Zeros | Interleaved | bytes
"""`bytes` are written as they are."""


@dataclass(frozen=True)
class ShardLayout:
    """A file of weights: `header`, then `pieces` end to end. `tensors` stand in the order of their bytes.

    A file that stays as it is has no header of its own: its one piece is the whole file.
    """

    name: str
    header: bytes
    pieces: tuple[Piece, ...]
    tensors: tuple[TensorInfo, ...]

    @property
    def size(self) -> int:
        return len(self.header) + sum(map(len, self.pieces))

    @property
    def marked_at(self) -> tuple[int, ...]:
        """Where the header ends, and each tensor."""
        data_start = len(self.header) or self.size - self.tensors[-1].data.stop
        return (data_start, *(data_start + t.data.stop for t in self.tensors))


@dataclass(frozen=True)
class Layout:
    """All files of an output but its model card, the picture in it, and gatenorm.json.

    `texts` are written anew, `copied` are taken over from the source, `left_out` are files of the source that do
    not travel, each with why where that is not plain; `missing` says what the output lacks since the source does,
    `taken_out` which code of other repositories is no longer named. `code` are files of Python that are taken over,
    with their BLAKE3 digests; nothing here runs them.
    `removed` are the tensors that go. Of GGUF the one shard is the output, and
    gatenorm.json stands beside it under its name.
    """

    shards: tuple[ShardLayout, ...]
    texts: Mapping[str, str]
    copied: Mapping[str, Copied]
    left_out: Mapping[str, str]
    removed: tuple[Tensor, ...]
    kind: Kind = Kind.SAFETENSORS
    missing: tuple[str, ...] = ()
    taken_out: tuple[str, ...] = ()
    code: Mapping[str, str] = field(default_factory=dict)

    @property
    def taken_from(self) -> Path | None:
        """A local file of the source whose bytes the output takes over, if there is one."""
        files = (piece.file for shard in self.shards for piece in shard.pieces if isinstance(piece, Copied))
        return next((file.path for file in files if file.path), None)

    @property
    def weight_bytes(self) -> int:
        return sum(len(t.data) for shard in self.shards for t in shard.tensors)

    @property
    def parameters(self) -> int:
        return sum(t.elements for shard in self.shards for t in shard.tensors)

    @property
    def size(self) -> int:
        """Bytes that the output takes on disk, near enough (the model card is not counted)."""
        return (
            sum(s.size for s in self.shards)
            + sum(map(len, self.texts.values()))
            + sum(map(len, self.copied.values()))
        )
