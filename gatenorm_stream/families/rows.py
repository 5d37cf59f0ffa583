"""Rows of a stored matrix as numbers: read by their byte ranges and widened, in memory that is used again."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from gatenorm_stream.families.projections import Weight
from gatenorm_stream.floats import (
    STORED,
    FloatArray,
    in_pairs,
    rows_at_once,
    widen,
    widen_into,
    widen_pairs,
    widened,
)
from gatenorm_stream.sources.ranges import ByteRange

BLOCK_BYTES = 8 << 20
"""Widened rows that are held at once. Fewer would have threads wait for each other between the calls of numpy."""
PIECE = 1 << 18
"""Numbers that are read and widened at once, a few steps each: their 1 MB as float32 stays in the cache meanwhile.

Found by measuring (`python -m benchmarks.widening`), beside 512 kB of L2 and 32 MB of L3. Below 2^17 the calls take
the time, 2 microseconds each, under Python's lock; above 2^20 each step waits for memory. In between it hardly
matters, so that larger caches don't call for another piece.
"""
APART = 16
"""Numbers between two rows: rows a multiple of 4096 bytes apart would compete for the same lines of the cache."""
HUGE_BYTES = 4 << 20
"""An array of this size or more is put on huge pages by numpy where the system allows it."""

Bytes: TypeAlias = npt.NDArray[np.uint8]
Widen: TypeAlias = Callable[[FloatArray, npt.NDArray[Any], str], None]
"""widen(out, stored numbers, their dtype)."""


class Room:
    """Bytes that are used again: fresh ones cost more time than filling them."""

    def __init__(self) -> None:
        self._bytes: Bytes = np.empty(0, np.uint8)

    def take(self, count: int) -> Bytes:
        """The same bytes as the last time, if they are enough."""
        if self._bytes.size < count:
            self._bytes = np.empty(max(count, HUGE_BYTES), np.uint8)
        return self._bytes[:count]


class Memory(threading.local):
    """Room that each thread has for itself, whoever took hold of `take`."""

    def __init__(self) -> None:
        self._room = Room()

    def take(self, count: int) -> Bytes:
        return self._room.take(count)


def new_memory(count: int) -> Bytes:
    """For numbers that are to stay."""
    return np.empty(count, np.uint8)


class Rows:
    """Rows of a stored matrix, in memory that `take` gives: float32, or float64 for F64."""

    def __init__(self, weight: Weight, take: Callable[[int], Bytes]) -> None:
        self._weight = weight
        self._take = take
        self._scale = scale_of(weight)
        self._in_pairs = not self._scale and in_pairs(weight.tensor.dtype, weight.tensor.shape[1])

    def __call__(self, *ranges: ByteRange, any_order: bool = False, finite: bool = False) -> FloatArray:
        """The rows that stand in `ranges`, one below the other.

        With `any_order`, the columns may come in another order, the same for all rows of the matrix, which is
        faster. With `finite` too, inf and nan may come as numbers of at least FROM_HALF.
        """
        weight, columns = self._weight, self._weight.tensor.shape[1]
        dtype = np.dtype(widened(weight.tensor.dtype))
        count = sum(map(len, ranges)) // weight.row_bytes
        numbers, at_once = count * (columns + APART) * dtype.itemsize, _at_once(weight, count)
        memory = self._take(numbers + at_once * weight.row_bytes)
        rows = memory[:numbers].view(dtype).reshape(-1, columns + APART)[:, :columns]
        pairs = any_order and self._in_pairs
        self._fill(rows, ranges, memory[numbers:], partial(widen_pairs, finite=finite) if pairs else widen_into)
        return rows

    def between(self, start: int, stop: int, *, any_order: bool = False) -> FloatArray:
        """Rows `start` to `stop` - 1 of the matrix."""
        return self(self._weight.rows(start, stop), any_order=any_order)

    def fill(self, out: FloatArray, start: int, stop: int) -> None:
        """Rows `start` to `stop` - 1 of the matrix in `out`, (stop - start, columns): float32 will do."""
        where = self._weight.rows(start, stop)
        self._fill(out, (where,), self._take(_at_once(self._weight, stop - start) * self._weight.row_bytes))

    def _fill(
        self, out: FloatArray, ranges: Sequence[ByteRange], memory: Bytes, widen_rows: Widen = widen_into
    ) -> None:
        """`memory` is for what is stored, as much as is held at once."""
        weight, done = self._weight, 0
        bits = STORED.get(weight.tensor.dtype, np.uint8)
        with rows_at_once():
            for where in (part for run in ranges for part in run.chunks(len(memory))):
                raw = self._stored(where, memory).view(bits).reshape(len(where) // weight.row_bytes, -1)
                first = (where.start - weight.tensor.range.start) // weight.row_bytes
                self._widen(out[done : done + len(raw)], raw, first, widen_rows)
                done += len(raw)

    def _widen(self, out: FloatArray, raw: npt.NDArray[Any], first: int, widen_rows: Widen) -> None:
        """Fills `out` with the numbers of `raw`, which are rows of the matrix from `first` on, piece by piece."""
        step = rows_of_a_piece(self._weight)
        for start in range(0, len(raw), step):
            part = out[start : start + step]
            widen_rows(part, raw[start : start + step], self._weight.tensor.dtype)
            if self._scale:
                np.multiply(part, self._scale(first + start, first + start + len(part)), out=part)

    def _stored(self, where: ByteRange, memory: Bytes) -> Bytes:
        stored = memory[: len(where)]
        self._weight.tensor.shard.file.read_into(where, stored.data)
        return stored


def widened_row_bytes(weight: Weight) -> int:
    return weight.tensor.shape[1] * np.dtype(widened(weight.tensor.dtype)).itemsize


def _at_once(weight: Weight, count: int) -> int:
    """Of so many rows, those whose stored bytes are held at once: of a remote file all, to ask for them once."""
    return count if weight.tensor.shard.file.path is None else min(count, rows_of_a_piece(weight))


def rows_of_a_piece(weight: Weight) -> int:
    return max(1, PIECE // max(1, weight.tensor.shape[1]))


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
