"""A projection's numbers as arrays: read by their byte ranges and widened, in memory that is used again."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from threading import Event
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from gatenorm_stream.checkpoint.local import LocalFile
from gatenorm_stream.checkpoint.ranges import coalesce
from gatenorm_stream.families.projections import Latent, Norm, Projection, Weight
from gatenorm_stream.floats import STORED, FloatArray, widen, widen_into, widened
from gatenorm_stream.head_products import UNFOLDED, Fold, RowBlocks, fold_of

REQUEST_BYTES = 4 << 20
"""A remote file is read in requests of about this size."""
CACHED_BYTES = 1 << 19
"""Stored bytes that are read and widened at once, so that they are still in the processor's own cache."""
BLOCK_BYTES = 8 << 20
"""Of a matrix that is read whole, widened rows that are held at once."""
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

    The array may stand in `memory`: it is valid until the next call. Of a remote file, neighbouring heads up to
    `stop` are read together, REQUEST_BYTES or one head at once, and kept for the next call. Heads of a latent come
    in an orthonormal basis of the latent's rows instead of the hidden state's: norms of products are the same in
    both; `fold` is in it. Raises CancelledError once `cancelled` is set.
    """

    def __init__(
        self,
        projection: Projection,
        stop: int,
        cancelled: Event,
        memory: Memory,
        *,
        remote: bool,
        fold: Fold = UNFOLDED,
    ) -> None:
        self._projection = projection
        self._stop = stop
        self._cancelled = cancelled
        self._remote = remote
        self._fold = fold
        self._rows = _Rows(projection.weight, _new if projection.transposed else memory.take)
        self._whole: FloatArray | None = None
        self._latent: tuple[FloatArray, FloatArray] | None = None

    def __call__(self, head: int) -> FloatArray:
        if self._cancelled.is_set():
            raise CancelledError
        p = self._projection
        start, stop = p.starts[head], p.starts[head] + p.dim
        if p.transposed:
            if self._whole is None:
                self._whole = self._rows(0, p.weight.tensor.shape[0])
            return self._whole[:, start:stop].T
        rows = self._rows(start, stop, self._read_to(head) if self._remote else stop)
        if p.latent is None:
            return rows
        if self._latent is None:
            self._latent = _basis(p.latent, self._fold)
        latent, shared = self._latent
        return np.vstack([(rows @ latent).astype(np.float32), shared])

    def _read_to(self, head: int) -> int:
        """The row up to which heads stand side by side and fit in one request."""
        p = self._projection
        last = head
        while last + 1 < self._stop and p.starts[last + 1] == p.starts[last] + p.dim:
            if (p.starts[last + 1] + p.dim - p.starts[head]) * p.weight.row_bytes > REQUEST_BYTES:
                break
            last += 1
        return p.starts[last] + p.dim


def row_blocks(projection: Projection, cancelled: Event, memory: Memory) -> RowBlocks:
    """Passes over all rows of the stored matrix, about BLOCK_BYTES at once; they raise CancelledError, too."""
    weight = projection.weight
    rows = _Rows(weight, memory.take)
    count, columns = weight.tensor.shape
    step = max(1, BLOCK_BYTES // (columns * np.dtype(widened(weight.tensor.dtype)).itemsize))

    def blocks() -> Iterator[tuple[int, FloatArray]]:
        for first in range(0, count, step):
            if cancelled.is_set():
                raise CancelledError
            yield first, rows(first, min(first + step, count))

    return blocks


def expect(projection: Projection, heads: range) -> None:
    """Has the system begin to read these heads, if they are local, so that the disk works while we do."""
    weight, file = projection.weight, projection.weight.tensor.shard.file
    if isinstance(file, LocalFile):
        places = [(s, s + projection.dim) for s in (projection.starts[h] for h in heads)]
        ranges = [weight.tensor.range] if projection.transposed else [weight.rows(*place) for place in places]
        for where in coalesce(ranges):
            file.expect(where)


def read_fold(norm: Norm | None) -> Fold:
    """Raises NotFiniteError."""
    if norm is None:
        return UNFOLDED
    tensor = norm.tensor
    weight = widen(tensor.shard.file.read(tensor.range), tensor.dtype, tensor.shape)
    return fold_of(weight.astype(np.float64) + norm.offset)


def _new(count: int) -> Bytes:
    return np.empty(count, np.uint8)


class _Rows:
    """Rows of a stored matrix, in memory that `take` gives.

    What was read of a remote file beyond the rows asked for is kept for the next call.
    """

    def __init__(self, weight: Weight, take: Callable[[int], Bytes]) -> None:
        self._weight = weight
        self._take = take
        self._scale = _scale(weight)
        self._held = range(0)
        self._data = memoryview(b"")

    def __call__(self, start: int, stop: int, read_to: int = 0) -> FloatArray:
        weight, file = self._weight, self._weight.tensor.shard.file
        dtype, columns = np.dtype(widened(weight.tensor.dtype)), weight.tensor.shape[1]
        step = max(1, CACHED_BYTES // weight.row_bytes)
        numbers = (stop - start) * (columns + APART) * dtype.itemsize
        memory = self._take(numbers + step * weight.row_bytes)
        rows = memory[:numbers].view(dtype).reshape(-1, columns + APART)[:, :columns]
        for first in range(start, stop, step):
            last = min(first + step, stop)
            if isinstance(file, LocalFile):
                stored = memory[numbers:][: (last - first) * weight.row_bytes]
                file.read_into(weight.rows(first, last), stored.data)
            else:
                stored = self._kept(first, last, max(stop, read_to))
            raw = stored.view(STORED.get(weight.tensor.dtype, np.uint8)).reshape(last - first, -1)
            part = rows[first - start : last - start]
            widen_into(part, raw, weight.tensor.dtype)
            if self._scale:
                np.multiply(part, self._scale(first, last), out=part)
        return rows

    def _kept(self, start: int, stop: int, read_to: int) -> npt.NDArray[Any]:
        weight = self._weight
        if start < self._held.start or stop > self._held.stop:
            self._held = range(start, read_to)
            self._data = weight.tensor.shard.file.read(weight.rows(start, self._held.stop))
        first = (start - self._held.start) * weight.row_bytes
        return np.frombuffer(self._data, np.uint8, (stop - start) * weight.row_bytes, first)


def _scale(weight: Weight) -> Callable[[int, int], FloatArray] | None:
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
    down = _Rows(latent.down, _new)(0, latent.rank + latent.shared).astype(np.float64)
    if fold.weight is not None:
        down *= fold.weight
    r = np.asarray(np.linalg.qr(down.T, mode="r"))
    return r.T[: latent.rank], r.T[latent.rank :].astype(np.float32)
