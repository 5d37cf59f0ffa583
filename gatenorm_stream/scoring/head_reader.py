"""The heads of a projection as arrays, read by their byte ranges."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import CancelledError
from threading import Event

import numpy as np

from gatenorm_stream.families.projections import Latent, Projection
from gatenorm_stream.families.rows import BLOCK_BYTES, Memory, Rows, new_memory, rows_of_a_piece, widened_row_bytes
from gatenorm_stream.floats import FloatArray
from gatenorm_stream.scoring.head_products import RowBlocks


class HeadReader:
    """Called with a head's number, gives its (head_dim, hidden) array in float32 (float64 if it is stored as F64),
    or some rows of it.

    The array may stand in `memory`: it is valid until the next call. Heads of a latent come in an orthonormal basis
    of the latent's rows instead of the hidden state's: norms of products are the same in both. With `any_order`,
    the columns of all heads are in another order if that is faster. Raises CancelledError once `cancelled` is set.
    """

    def __init__(
        self, projection: Projection, cancelled: Event, memory: Memory, *, any_order: bool = False
    ) -> None:
        self._projection = projection
        self._cancelled = cancelled
        self._any_order = any_order
        self._rows = Rows(projection.weight, new_memory if projection.transposed else memory.take)
        self._whole: FloatArray | None = None
        self._latent: tuple[FloatArray, FloatArray] | None = None

    @property
    def at_once(self) -> int:
        """How many heads `for_gram` should be asked for."""
        p = self._projection
        return 1 if p.latent else max(1, BLOCK_BYTES // (p.dim * widened_row_bytes(p.weight)))

    def for_gram(self, which: range) -> FloatArray:
        """Heads of which only the Gram matrix is wanted, (heads, head_dim, hidden), as valid as one.

        The order of columns changes nothing there, and inf and nan show by its size (`head_products`).
        """
        p = self._projection
        if p.transposed or p.latent:
            return np.stack([self(head) for head in which])
        _go_on(self._cancelled)
        rows = self._rows(*p.rows_of(which), any_order=True, finite=True)
        return rows.reshape(len(which), p.dim, -1)

    @property
    def rows_at_once(self) -> int:
        """How many rows of a head fit in the cache; all, where they don't come by themselves."""
        p = self._projection
        return p.dim if p.transposed or p.latent else rows_of_a_piece(p.weight)

    def __call__(self, head: int, rows: slice = slice(None), /) -> FloatArray:
        p = self._projection
        _go_on(self._cancelled)
        if p.transposed:
            if self._whole is None:
                self._whole = self._rows(p.weight.tensor.range)
            return self._whole[:, p.starts[head] : p.starts[head] + p.dim].T[rows]
        if p.latent is None:
            first, stop, _ = rows.indices(p.dim)
            return self._rows.between(p.starts[head] + first, p.starts[head] + stop, any_order=self._any_order)
        if self._latent is None:
            self._latent = _basis(p.latent)
        latent, shared = self._latent
        part = self._rows(*p.rows_of(range(head, head + 1)))
        return np.vstack([(part @ latent).astype(np.float32), shared])[rows]


def row_blocks(projection: Projection, cancelled: Event, memory: Memory) -> RowBlocks:
    """Passes over all rows of the stored matrix, about BLOCK_BYTES at once; they raise CancelledError, too."""
    weight = projection.weight
    rows = Rows(weight, memory.take)
    count = weight.tensor.shape[0]
    step = max(1, BLOCK_BYTES // widened_row_bytes(weight))

    def blocks() -> Iterator[FloatArray]:
        for first in range(0, count, step):
            _go_on(cancelled)
            yield rows(weight.rows(first, min(first + step, count)))

    return blocks


def expect_heads(projection: Projection, heads: range) -> None:
    tensor = projection.weight.tensor
    for where in (tensor.range,) if projection.transposed else projection.rows_of(heads):
        tensor.shard.file.expect(where)


def _go_on(cancelled: Event) -> None:
    if cancelled.is_set():
        raise CancelledError


def _basis(latent: Latent) -> tuple[FloatArray, FloatArray]:
    """The rows of `down` (those of the latent, those that heads share) in an orthonormal basis of their span.

    With down^T = U R (QR), the rows of R^T are down's in the basis of U's columns.
    """
    down = Rows(latent.down, new_memory)(latent.range).astype(np.float64)
    r = np.asarray(np.linalg.qr(down.T, mode="r"))
    return r.T[: latent.rank], r.T[latent.rank :].astype(np.float32)
