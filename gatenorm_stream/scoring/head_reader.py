"""A projection's numbers as arrays: read by their byte ranges and widened, in memory that is used again."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from threading import Event
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from gatenorm_stream.families.projections import Latent, Norm, Projection, Weight
from gatenorm_stream.floats import STORED, FloatArray, widen, widen_into, widened
from gatenorm_stream.scoring.head_products import UNFOLDED, Fold, RowBlocks, fold_of
from gatenorm_stream.sources.local import LocalFile
from gatenorm_stream.sources.ranges import ByteRange

BLOCK_BYTES = 8 << 20
"""Widened rows that are held at once. Fewer would have threads wait for each other between the calls of numpy."""
QUANTISED_BYTES = 1 << 19
"""Of quantised numbers, stored bytes that are widened at once, which takes many times their size."""
APART = 16
"""Numbers between two rows: rows a multiple of 4096 bytes apart would compete for the same lines of the cache."""
HUGE_BYTES = 4 << 20
"""An array of this size or more is put on huge pages by numpy where the system allows it."""

Bytes: TypeAlias = npt.NDArray[np.uint8]


class Memory(threading.local):
    """Bytes that each thread has for itself and uses again: fresh ones cost more time than filling them."""

    def __init__(self) -> None:
        self._bytes: Bytes = np.empty(0, np.uint8)

    def take(self, count: int) -> Bytes:
        """The same bytes as the last time, if they are enough."""
        if self._bytes.size < count:
            self._bytes = np.empty(max(count, HUGE_BYTES), np.uint8)
        return self._bytes[:count]


class HeadReader:
    """Called with a head's number, gives its (head_dim, hidden) array in float32 (float64 if it is stored as F64).

    The array may stand in `memory`: it is valid until the next call. Heads of a latent come in an orthonormal basis
    of the latent's rows instead of the hidden state's: norms of products are the same in both; `fold` is in it.
    Raises CancelledError once `cancelled` is set.
    """

    def __init__(self, projection: Projection, cancelled: Event, memory: Memory, *, fold: Fold = UNFOLDED) -> None:
        self._projection = projection
        self._cancelled = cancelled
        self._fold = fold
        self._rows = _Rows(projection.weight, _new if projection.transposed else memory.take)
        self._whole: FloatArray | None = None
        self._latent: tuple[FloatArray, FloatArray] | None = None

    @property
    def at_once(self) -> int:
        """How many heads `heads` should be asked for."""
        p = self._projection
        return 1 if p.latent else max(1, BLOCK_BYTES // (p.dim * _widened_row_bytes(p.weight)))

    def heads(self, which: range) -> FloatArray:
        """(heads, head_dim, hidden), as valid as one."""
        p = self._projection
        if p.transposed or p.latent:
            return np.stack([self(head) for head in which])
        _go_on(self._cancelled)
        return self._rows(*p.rows_of(which)).reshape(len(which), p.dim, -1)

    def __call__(self, head: int) -> FloatArray:
        p = self._projection
        _go_on(self._cancelled)
        if p.transposed:
            if self._whole is None:
                self._whole = self._rows(p.weight.tensor.range)
            return self._whole[:, p.starts[head] : p.starts[head] + p.dim].T
        rows = self._rows(*p.rows_of(range(head, head + 1)))
        if p.latent is None:
            return rows
        if self._latent is None:
            self._latent = _basis(p.latent, self._fold)
        latent, shared = self._latent
        return np.vstack([(rows @ latent).astype(np.float32), shared])


def row_blocks(projection: Projection, cancelled: Event, memory: Memory) -> RowBlocks:
    """Passes over all rows of the stored matrix, about BLOCK_BYTES at once; they raise CancelledError, too."""
    weight = projection.weight
    rows = _Rows(weight, memory.take)
    count = weight.tensor.shape[0]
    step = max(1, BLOCK_BYTES // _widened_row_bytes(weight))

    def blocks() -> Iterator[tuple[int, FloatArray]]:
        for first in range(0, count, step):
            _go_on(cancelled)
            yield first, rows(weight.rows(first, min(first + step, count)))

    return blocks


def expect(projection: Projection, heads: range) -> None:
    """Has the system begin to read these heads, if they are local, so that the disk works while we do."""
    tensor = projection.weight.tensor
    if isinstance(tensor.shard.file, LocalFile):
        for where in (tensor.range,) if projection.transposed else projection.rows_of(heads):
            tensor.shard.file.expect(where)


def read_fold(norm: Norm | None) -> Fold:
    """Raises NotFiniteError."""
    if norm is None:
        return UNFOLDED
    tensor = norm.tensor
    weight = widen(tensor.shard.file.read(tensor.range), tensor.dtype, tensor.shape)
    return fold_of(weight.astype(np.float64) + norm.offset)


def _go_on(cancelled: Event) -> None:
    if cancelled.is_set():
        raise CancelledError


def _new(count: int) -> Bytes:
    return np.empty(count, np.uint8)


class _Rows:
    """Rows of a stored matrix, in memory that `take` gives."""

    def __init__(self, weight: Weight, take: Callable[[int], Bytes]) -> None:
        self._weight = weight
        self._take = take
        self._scale = scale_of(weight)

    def __call__(self, *ranges: ByteRange) -> FloatArray:
        """The rows that stand in `ranges`, one below the other."""
        weight, columns = self._weight, self._weight.tensor.shape[1]
        dtype = np.dtype(widened(weight.tensor.dtype))
        count = sum(map(len, ranges)) // weight.row_bytes
        numbers = count * (columns + APART) * dtype.itemsize
        quantised = weight.tensor.dtype not in STORED
        step = min(count, max(1, QUANTISED_BYTES // weight.row_bytes)) if quantised else count
        memory = self._take(numbers + step * weight.row_bytes)
        rows = memory[:numbers].view(dtype).reshape(-1, columns + APART)[:, :columns]
        done = 0
        for where in (piece for run in ranges for piece in run.chunks(step * weight.row_bytes)):
            stored = self._stored(where, memory[numbers:])
            raw = stored.view(STORED.get(weight.tensor.dtype, np.uint8)).reshape(len(where) // weight.row_bytes, -1)
            part = rows[done : done + len(raw)]
            widen_into(part, raw, weight.tensor.dtype)
            if self._scale:
                first = (where.start - weight.tensor.range.start) // weight.row_bytes
                np.multiply(part, self._scale(first, first + len(raw)), out=part)
            done += len(raw)
        return rows

    def _stored(self, where: ByteRange, memory: Bytes) -> Bytes:
        file = self._weight.tensor.shard.file
        if not isinstance(file, LocalFile):
            return np.frombuffer(file.read(where), np.uint8)
        stored = memory[: len(where)]
        file.read_into(where, stored.data)
        return stored


def _widened_row_bytes(weight: Weight) -> int:
    return weight.tensor.shape[1] * np.dtype(widened(weight.tensor.dtype)).itemsize


def scale_of(weight: Weight) -> Callable[[int, int], FloatArray] | None:
    """Gives the factors of rows start to stop."""
    if weight.scale is None:
        return None
    rows, columns = weight.tensor.shape
    down, right = weight.block
    stored = weight.scale.shard.file.read(weight.scale.range)
    grid = widen(stored, weight.scale.dtype, (-(-rows // down), -(-columns // right)))
    across = np.arange(columns) // right
    return lambda start, stop: grid[np.arange(start, stop) // down][:, across]


def _basis(latent: Latent, fold: Fold) -> tuple[FloatArray, FloatArray]:
    """The rows of `down` (those of the latent, those that heads share) in an orthonormal basis of their span.

    With down^T = U R (QR), the rows of R^T are down's in the basis of U's columns.
    """
    down = _Rows(latent.down, _new)(latent.range).astype(np.float64)
    if fold.weight is not None:
        down *= fold.weight
    r = np.asarray(np.linalg.qr(down.T, mode="r"))
    return r.T[: latent.rank], r.T[latent.rank :].astype(np.float32)
