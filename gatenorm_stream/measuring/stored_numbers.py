"""Whole tensors of a checkpoint as float32 arrays, read and widened a block at a time."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

from gatenorm_stream.checkpoint.tensors import Checkpoint, Tensor
from gatenorm_stream.errors import UnsupportedModelError
from gatenorm_stream.families.projections import Weight
from gatenorm_stream.families.rows import scale_of
from gatenorm_stream.families.scales import FLOAT8_DTYPES, FLOAT_DTYPES, scaled
from gatenorm_stream.families.scope import Scope
from gatenorm_stream.floats import STORED, widen_into, widened

BLOCK_BYTES = 8 << 20
"""Stored bytes that are read and widened at once."""
FP4 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, 0, -0.5, -1, -1.5, -2, -3, -4, -6], np.float32)
"""What the 16 codes of 4-bit floating point (E2M1) stand for, OCP Microscaling Formats 1.0, 5.3.3."""
BLOCKS, SCALES = "_blocks", "_scales"
"""What GPT-OSS appends to the names of weights that are stored in MXFP4."""

Numbers = npt.NDArray[np.float32]


class Stored(Protocol):
    """A tensor of the model, however it is stored. `name` is without endings that tell of how."""

    @property
    def name(self) -> str: ...

    def read(self) -> Numbers:
        """All of it, in a new array. Raises CheckpointError if its bytes are not there."""


class Matrix:
    """A stored tensor of floating-point numbers; rows are what its first axis counts."""

    def __init__(self, checkpoint: Checkpoint, tensor: Tensor) -> None:
        """Raises UnsupportedModelError if it holds no floating-point numbers."""
        self.name = tensor.name
        self._weight = Weight(tensor)
        if tensor.dtype in FLOAT8_DTYPES:
            scope = Scope(checkpoint, checkpoint.config, checkpoint.config_where, "")
            self._weight = scaled(scope, tensor.name.removesuffix(".weight"), tensor)
        elif tensor.dtype not in FLOAT_DTYPES:
            raise UnsupportedModelError(
                f"{tensor.name} in {checkpoint.source.title} is stored as {tensor.dtype}, which can't be measured; "
                "use the unquantised safetensors form of this model"
            )
        self._scale = scale_of(self._weight)

    @property
    def shape(self) -> tuple[int, ...]:
        return self._weight.tensor.shape

    def read(self) -> Numbers:
        return self.rows(0, self.shape[0]) if self.shape else self._read(0, 1).reshape(())

    def rows(self, start: int, stop: int) -> Numbers:
        """(stop - start, ...): some of its rows."""
        columns = self._weight.tensor.info.elements // max(1, self.shape[0])
        out = self._read(start * columns, stop * columns).reshape(stop - start, *self.shape[1:])
        if self._scale:
            step = max(1, BLOCK_BYTES // max(1, columns))
            for first in range(start, stop, step):
                part = out[first - start : first - start + step]
                np.multiply(part, self._scale(first, first + len(part)), out=part)
        return out

    def _read(self, start: int, stop: int) -> Numbers:
        """Elements in the order that they are stored in."""
        tensor = self._weight.tensor
        dtype = np.dtype(STORED[tensor.dtype])
        out = np.empty(stop - start, np.float32)
        step = BLOCK_BYTES // dtype.itemsize
        for first in range(start, stop, step):
            last = min(first + step, stop)
            where = tensor.range.part(first * dtype.itemsize, last * dtype.itemsize)
            raw = np.frombuffer(tensor.shard.file.read(where), dtype)
            part = out[first - start : last - start]
            if widened(tensor.dtype) is np.float32:
                widen_into(part, raw, tensor.dtype)
            else:
                part[:] = raw
        return out


class Mxfp4:
    """Weights of experts as GPT-OSS stores them, OCP Microscaling Formats 1.0.

    `blocks` is (experts, out, in / 32, 16): each 16 bytes hold 32 numbers, the first in the lower half of a byte.
    They are multiplied by 2 to the power of their number in `scales`, (experts, out, in / 32), less 127.
    """

    def __init__(self, checkpoint: Checkpoint, blocks: Tensor, scales: Tensor) -> None:
        """Raises UnsupportedModelError if the two don't fit each other."""
        self.name = blocks.name.removesuffix(BLOCKS)
        self._blocks, self._scales = blocks, scales
        if (
            (blocks.dtype, scales.dtype) != ("U8", "U8")
            or len(blocks.shape) != 4
            or blocks.shape != (*scales.shape, 16)
        ):
            raise UnsupportedModelError(
                f"{blocks.name} in {checkpoint.source.title} ({blocks.dtype}, {list(blocks.shape)}) is not "
                "GPT-OSS's MXFP4; use the unquantised safetensors form of this model"
            )

    def read(self) -> Numbers:
        """(experts, in, out), as transformers has them."""
        experts, outs, groups = self._scales.shape
        whole = np.empty((experts, groups * 32, outs), np.float32)
        for expert in range(experts):
            codes = self._of(self._blocks, expert).reshape(outs, groups, 16)
            power = self._of(self._scales, expert).reshape(outs, groups, 1).astype(np.int32) - 127
            numbers = np.stack([FP4[codes & 15], FP4[codes >> 4]], axis=-1).reshape(outs, groups, 32)
            whole[expert] = np.ldexp(numbers, power).reshape(outs, groups * 32).T
        return whole

    @staticmethod
    def _of(tensor: Tensor, expert: int) -> npt.NDArray[np.uint8]:
        count = tensor.info.elements // tensor.shape[0]
        return np.frombuffer(tensor.shard.file.read(tensor.range.part(expert * count, (expert + 1) * count)), "u1")


def find_stored(checkpoint: Checkpoint, name: str) -> Stored | None:
    """The tensor `name`, or None if it only belongs to another. Raises as the classes above do."""
    tensors = checkpoint.tensors
    for ending, other in ((BLOCKS, SCALES), (SCALES, BLOCKS)):
        twin = tensors.get(name.removesuffix(ending) + other) if name.endswith(ending) else None
        if twin:
            return Mxfp4(checkpoint, tensors[name], twin) if ending == BLOCKS else None
    return Matrix(checkpoint, tensors[name])
