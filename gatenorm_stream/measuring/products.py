"""Products with stored matrices, whose rows are read, widened and multiplied a block at a time, on many threads.

Each thread holds one widened block. How a matrix is cut does not depend on the number of threads, so neither does
what comes out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from gatenorm_stream.checkpoint.tensors import Tensor
from gatenorm_stream.families.projections import Weight
from gatenorm_stream.families.rows import BLOCK_BYTES, Memory, Rows, widened_row_bytes
from gatenorm_stream.floats import widen
from gatenorm_stream.measuring.llama import Linear
from gatenorm_stream.sources.source import Source
from gatenorm_stream.work import available_threads

Float32Array = npt.NDArray[np.float32]
T = TypeVar("T")

PARTS = 16
"""Into about as many a matrix is cut, so that all threads have work, ..."""
FEWEST_ROWS = 128
"""... but not into fewer rows."""


@dataclass(frozen=True)
class Block:
    """The same rows of one matrix, or of two of the same shape."""

    weights: tuple[Weight, ...]
    start: int
    stop: int

    @property
    def rows(self) -> slice:
        return slice(self.start, self.stop)

    def expect(self) -> None:
        for weight in self.weights:
            weight.tensor.shard.file.expect(weight.rows(self.start, self.stop))


def blocks(*weights: Weight) -> list[Block]:
    count = weights[0].tensor.shape[0]
    most = max(1, BLOCK_BYTES // widened_row_bytes(weights[0]))
    step = min(most, max(FEWEST_ROWS, -(-count // PARTS)))
    return [Block(weights, start, min(start + step, count)) for start in range(0, count, step)]


class Products:
    """Opened by `with`; at the end no thread of it is left. As many threads as a remote source has connections."""

    def __init__(self, source: Source, threads: int | None = None) -> None:
        self._source = source
        self._threads = source.connections if source.remote else threads or available_threads()
        self._pool = ThreadPoolExecutor(self._threads)
        self._memory = Memory()

    def __enter__(self) -> Products:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind:
            self._source.cancel()
        self._pool.shutdown(cancel_futures=True)

    def share_out(self, act: Callable[[int], T], count: int) -> Iterator[T]:
        """act(0) to act(count - 1), in their order."""
        return self._pool.map(_QUIET(act), range(count))

    def each(self, act: Callable[[Block], T], parts: Sequence[Block], then: Sequence[Block] = ()) -> Iterator[T]:
        """act(block) of each, in their order. While one is worked on, the disk reads the next, `then` after all."""
        ahead = [*parts, *then[: self._threads]]

        def read_on_and_act(number: int) -> T:
            for block in ahead[number + self._threads : number + self._threads + 1]:
                block.expect()
            return act(parts[number])

        return self.share_out(read_on_and_act, len(parts))

    def reader(self, weight: Weight) -> Rows:
        """Of widened rows, in memory that the same thread's next reading uses again."""
        return Rows(weight, self._memory.take)

    def apply(self, x: Float32Array, *linears: Linear, then: Sequence[Block] = ()) -> tuple[Float32Array, ...]:
        """x W^T + b of each; x is (tokens, in), what comes out (tokens, out)."""
        outs = tuple(np.empty((len(x), linear.outputs), np.float32) for linear in linears)
        place = {
            id(linear.weight): (self.reader(linear.weight), out) for linear, out in zip(linears, outs, strict=True)
        }

        def multiply(block: Block) -> None:
            rows, out = place[id(block.weights[0])]
            weights = rows.between(block.start, block.stop)
            np.matmul(x, weights.T, out=out[:, block.rows], casting="same_kind")

        parts = [block for linear in linears for block in blocks(linear.weight)]
        for _ in self.each(multiply, parts, then):
            pass
        for linear, out in zip(linears, outs, strict=True):
            if linear.bias:
                out += vector(linear.bias)
        return outs


def vector(tensor: Tensor) -> Float32Array:
    """A small tensor, whole."""
    stored = tensor.shard.file.read(tensor.range)
    return widen(stored, tensor.dtype, tensor.shape).astype(np.float32, copy=False)


_QUIET = np.errstate(over="ignore", under="ignore", invalid="ignore", divide="ignore")
"""What is not finite is looked for in the results."""
