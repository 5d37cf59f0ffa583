"""What each tensor of an output must hold, from the edit and the source alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gatenorm_stream.checkpoint.tensors import Checkpoint, Tensor
from gatenorm_stream.formats.edit import Edit
from gatenorm_stream.sources.ranges import ByteRange

CHUNK = 4 << 20


@dataclass(frozen=True)
class Content:
    """The bytes of `original`, or `values`, or zeros if there is neither.

    With `head_rows`, the two halves of each head of so many rows are brought into pairs: row i of the first half,
    row i of the second.
    """

    dtype: str
    shape: tuple[int, ...]
    original: Tensor | None = None
    values: bytes | None = None
    head_rows: int = 0

    @property
    def fault(self) -> str:
        """What is said of a tensor that holds something else."""
        if self.original:
            return "differs from the source's"
        return "is not zero" if self.values is None else "is not what the plan makes of the source"

    def chunks(self, size: int) -> tuple[ByteRange, ...]:
        """All `size` bytes of the tensor, in portions of whole heads where rows are paired."""
        step = CHUNK
        if self.head_rows:
            head = self.head_rows * (size // self.shape[0])
            step = max(1, CHUNK // head) * head
        return tuple(ByteRange(0, size).chunks(step))

    def read(self, where: ByteRange) -> bytes:
        """What must stand at these bytes, counted from the tensor's own start. Raises CheckpointError."""
        if self.original is None:
            return bytes(len(where)) if self.values is None else self.values[where.start : where.stop]
        tensor = self.original
        found = tensor.shard.file.fetch(tensor.range.part(where.start, where.stop))
        if not self.head_rows:
            return bytes(found)
        row = len(tensor.range) // self.shape[0]
        halves = np.frombuffer(found, np.uint8).reshape(-1, 2, self.head_rows // 2, row)
        return halves.swapaxes(1, 2).tobytes()


def holds(tensor: Tensor, content: Content, where: ByteRange) -> bool:
    """Whether `tensor` has `content` at these bytes of its own. Raises CheckpointError if either can't be read."""
    found = tensor.shard.file.read(tensor.range.part(where.start, where.stop))
    return bytes(found) == content.read(where)  # bytes compare a hundred times as fast as memoryviews


def contents(edit: Edit, source: Checkpoint) -> dict[str, Content]:
    """By the names of the output's tensors."""
    found = {}
    for name, tensor in source.tensors.items():
        if name not in edit.remove:
            original = None if name in edit.zero else tensor
            head_rows = edit.interleave.get(name, 0) if original else 0
            found[name] = Content(tensor.dtype, tensor.shape, original, head_rows=head_rows)
    for new in edit.add:
        dtype = new.dtype or source.tensors[new.after].dtype
        found[new.name] = Content(dtype, new.shape, values=new.values)
    return found
