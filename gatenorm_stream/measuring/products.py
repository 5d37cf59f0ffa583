"""Products with stored matrices, whose rows are read, widened and multiplied a stretch at a time, on many threads.

All threads widen a stretch, block by block, then multiply it by the tokens, tile by tile: each weight is widened
once for all tokens, and what is multiplied stays in the processor's cache. How a matrix is cut into blocks and
tokens into tiles depends on how many tokens there are, not on the number of threads: what comes out is the same
bits on any.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import accumulate
from typing import TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from gatenorm_stream.checkpoint.tensors import Tensor
from gatenorm_stream.families.projections import Weight
from gatenorm_stream.families.rows import BLOCK_BYTES, Bytes, Memory, Room, Rows, room_for, widened_row_bytes
from gatenorm_stream.floats import FloatArray, widen
from gatenorm_stream.measuring.llama import Linear
from gatenorm_stream.sources.source import Source
from gatenorm_stream.work import available_threads

Float32Array = npt.NDArray[np.float32]
T = TypeVar("T")

PARTS = 16
"""Into as many at most a matrix is cut, so that all threads have work, ..."""
FEWEST_ROWS, FEWEST_OF_MANY = 192, 512
"""... but not into fewer rows. Where tokens make several tiles there is work enough, and BLAS takes larger blocks
more than a tenth faster."""
STRETCH_BYTES = 16 << 20
"""Widened blocks that are held at once; a block a thread if that is more."""
TILE = 1024
"""Tokens that are multiplied by a block at once, at most."""
ALIGNED = 64
TASKS = 8
"""For each thread, so that none waits long for the last."""


@dataclass(frozen=True)
class Block:
    """The same rows of one matrix, or of two of the same shape."""

    weights: tuple[Weight, ...]
    start: int
    stop: int

    @property
    def rows(self) -> slice:
        return slice(self.start, self.stop)

    @property
    def bytes(self) -> int:
        """Of its numbers, widened."""
        return (self.stop - self.start) * sum(map(widened_row_bytes, self.weights))

    def expect(self) -> None:
        for weight in self.weights:
            weight.tensor.shard.file.expect(weight.rows(self.start, self.stop))


Matrices: TypeAlias = tuple[FloatArray, ...]
Act: TypeAlias = Callable[[Block, Matrices, slice], None]
"""act(block, its matrices, tokens): called for each block with each tile of tokens, on many threads."""


def blocks(tokens: int, *weights: Weight) -> list[Block]:
    count, fewest = weights[0].tensor.shape[0], FEWEST_OF_MANY if tokens > TILE else FEWEST_ROWS
    most = max(1, BLOCK_BYTES // (len(weights) * widened_row_bytes(weights[0])))
    parts = max(-(-count // most), min(PARTS, count // fewest), 1)
    return [Block(weights, part.start, part.stop) for part in slices(count, -(-count // parts))]


def tiles(tokens: int) -> list[slice]:
    """A power of two of them, which threads can share evenly."""
    parts = 1 << (-(-tokens // TILE) - 1).bit_length()
    return slices(tokens, -(-tokens // parts))


def slices(count: int, most: int) -> list[slice]:
    """Of about the same length, `most` at most."""
    parts = -(-count // max(1, most))
    return [slice(n * count // parts, (n + 1) * count // parts) for n in range(parts)]


class Products:
    """Opened by `with`; at the end no thread of it is left. As many threads as a remote source has connections."""

    def __init__(self, source: Source, threads: int | None = None) -> None:
        self._source, self._wanted = source, threads
        self._memory, self._stretch = Memory(), Room()

    def __enter__(self) -> Products:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind:
            self._source.cancel()
        self._pool.shutdown(cancel_futures=True)

    @cached_property
    def _threads(self) -> int:
        """Asked for when work begins: by then a remote source may have come whole."""
        return self._source.connections if self._source.remote else self._wanted or available_threads()

    @cached_property
    def _pool(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(self._threads)

    def share_out(self, act: Callable[[T], object], parts: Sequence[T]) -> None:
        """Waits until act(part) was called with each. Raises what any of them raised."""
        tasks = slices(len(parts), -(-len(parts) // (TASKS * self._threads)))

        def act_on(task: slice) -> None:
            for part in parts[task]:
                act(part)

        for _ in self._pool.map(_QUIET(act_on), tasks):
            pass

    def reader(self, weight: Weight) -> Rows:
        """Of widened rows, in memory that the same thread's next reading uses again."""
        return Rows(weight, self._memory.take)

    def multiply(
        self, act: Act, tokens: int, *weights: Weight, then: Sequence[Weight] = ()
    ) -> Iterator[Sequence[Block]]:
        """Acts on all blocks of `weights`, which are of one shape, and gives the blocks of each stretch when it is
        done. While one is worked on, the disk reads the next; at the end the first ones of `then`.
        """
        stretches = self._stretches(blocks(tokens, *weights))
        readers = [self.reader(weight) for weight in weights]
        last = blocks(tokens, *then)[: self._threads] if then else []
        for stretch, following in zip(stretches, [*stretches[1:], last], strict=True):
            matrices = self._widened(stretch, readers, following)
            parts = [(number, tile) for tile in tiles(tokens) for number in range(len(stretch))]
            self.share_out(lambda part: act(stretch[part[0]], matrices[part[0]], part[1]), parts)  # noqa: B023
            yield stretch

    def apply(self, x: Float32Array, *linears: Linear, then: Sequence[Weight] = ()) -> tuple[Float32Array, ...]:
        """x W^T + b of each; x is (tokens, in), what comes out (tokens, out)."""
        outs = tuple(np.empty((len(x), linear.outputs), np.float32) for linear in linears)
        for number, (linear, out) in enumerate(zip(linears, outs, strict=True)):
            bias = vector(linear.bias) if linear.bias else None

            def act(
                block: Block,
                matrices: Matrices,
                tile: slice,
                out: Float32Array = out,
                bias: Float32Array | None = bias,
            ) -> None:
                part = out[tile, block.rows]
                np.matmul(x[tile], matrices[0].T, out=part, casting="same_kind")
                if bias is not None:
                    part += bias[block.rows]

            following = [linears[number + 1].weight] if number + 1 < len(linears) else then
            for _ in self.multiply(act, len(x), linear.weight, then=following):
                pass
        return outs

    def _stretches(self, parts: Sequence[Block]) -> list[Sequence[Block]]:
        count = max(self._threads, STRETCH_BYTES // max(1, parts[0].bytes))
        return [parts[start : start + count] for start in range(0, len(parts), count)]

    def _widened(
        self, stretch: Sequence[Block], readers: Sequence[Rows], following: Sequence[Block]
    ) -> list[Matrices]:
        """The matrices of each block, in memory that the next stretch uses again."""
        sizes = [room_for(weight, b.stop - b.start) for b in stretch for weight in b.weights]
        begins = [0, *accumulate(-(-size // ALIGNED) * ALIGNED for size in sizes)]
        memory = self._stretch.take(begins[-1])
        wide: list[FloatArray] = [np.empty(0)] * len(sizes)

        def widen_block(number: int) -> None:
            for ahead in following[number :: len(stretch)]:
                ahead.expect()
            block = stretch[number]
            for place, rows in enumerate(readers, start=number * len(readers)):
                take = partial(_part, memory, begins[place])
                wide[place] = rows.between(block.start, block.stop, take)

        self.share_out(widen_block, range(len(stretch)))
        return [tuple(wide[n : n + len(readers)]) for n in range(0, len(wide), len(readers))]


def _part(memory: Bytes, begin: int, count: int) -> Bytes:
    return memory[begin : begin + count]


def vector(tensor: Tensor) -> Float32Array:
    """A small tensor, whole."""
    stored = tensor.shard.file.read(tensor.range)
    return widen(stored, tensor.dtype, tensor.shape).astype(np.float32, copy=False)


_QUIET = np.errstate(over="ignore", under="ignore", invalid="ignore", divide="ignore")
"""What is not finite is looked for in the results."""
