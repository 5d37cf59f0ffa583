"""The heads of a projection as arrays: read by their byte ranges and widened."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import CancelledError
from threading import Event

import numpy as np

from gatenorm_stream.families.projections import Latent, Projection, Weight
from gatenorm_stream.floats import FloatArray, widen

REQUEST_BYTES = 4 << 20
"""A remote file is read in requests of about this size."""


class HeadReader:
    """Called with a head's number, gives its (head_dim, hidden) array in float32 (float64 if it is stored as F64).

    Of a remote file, neighbouring heads up to `stop` are read together, REQUEST_BYTES or one head at once, and kept
    for the next call. Heads of a latent come in an orthonormal basis of the latent's rows instead of the hidden
    state's: norms of products are the same in both. Raises CancelledError once `cancelled` is set.
    """

    def __init__(self, projection: Projection, stop: int, cancelled: Event, *, remote: bool) -> None:
        self._projection = projection
        self._stop = stop
        self._cancelled = cancelled
        self._remote = remote
        self._rows = _Rows(projection.weight)
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
            self._latent = _basis(p.latent)
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


class _Rows:
    """Rows of a stored matrix; what was read beyond those asked for is kept for the next call."""

    def __init__(self, weight: Weight) -> None:
        self._weight = weight
        self._scale = _scale(weight)
        self._held = range(0)
        self._data = memoryview(b"")

    def __call__(self, start: int, stop: int, read_to: int = 0) -> FloatArray:
        weight, file = self._weight, self._weight.tensor.shard.file
        if start < self._held.start or stop > self._held.stop:
            self._held = range(start, max(stop, read_to))
            self._data = file.read(weight.rows(start, self._held.stop))
        first = (start - self._held.start) * weight.row_bytes
        data = self._data[first : first + (stop - start) * weight.row_bytes]
        rows = widen(data, weight.tensor.dtype, (stop - start, weight.tensor.shape[1]))
        return rows if self._scale is None else rows * self._scale(start, stop)


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


def _basis(latent: Latent) -> tuple[FloatArray, FloatArray]:
    """The rows of `down` (those of the latent, those that heads share) in an orthonormal basis of their span.

    With down^T = U R (QR), the rows of R^T are down's in the basis of U's columns.
    """
    rows = latent.down.tensor.shape[0]
    r = np.asarray(np.linalg.qr(_Rows(latent.down)(0, rows).astype(np.float64).T, mode="r"))
    rank = rows - latent.shared
    return r.T[:rank], r.T[rank:].astype(np.float32)
