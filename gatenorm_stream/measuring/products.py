"""Products with stored matrices, whose rows are read, widened and multiplied a stretch at a time, on many threads.

All threads widen a stretch, block by block, then multiply it by the tokens, tile by tile: each weight is widened
once for all tokens, and what is multiplied stays in the processor's cache. How a matrix is cut into blocks and
tokens into tiles depends on how many tokens there are, not on the number of threads: what comes out is the same
bits on any.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import accumulate
from typing import NamedTuple, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from gatenorm_stream.checkpoint.tensors import Tensor
from gatenorm_stream.families.projections import Weight
from gatenorm_stream.families.rows import APART, BLOCK_BYTES, Memory, Room, Rows
from gatenorm_stream.floats import rows_at_once, widen
from gatenorm_stream.measuring.llama import Linear
from gatenorm_stream.sources.source import Source
from gatenorm_stream.work import available_threads

Float32Array = npt.NDArray[np.float32]
T = TypeVar("T")

PARTS = 16
"""Into as many at most a matrix is cut, so that all threads have work, ..."""
FEWEST_ROWS, FEWEST_OF_MANY = 192, 1024
"""... but not into fewer rows. Where tokens make several tiles there is work enough, and BLAS takes larger blocks
more than a tenth faster: it packs the tokens anew for each."""
STRETCH_BYTES = 16 << 20
"""Widened blocks that are held at once; a block a thread if that is more."""
TILE = 1024
"""Tokens that are multiplied by a block at once, at most."""
TASKS = 8
"""For each thread, so that none waits long for the last."""


class Part(NamedTuple):
    """Some rows of one matrix."""

    weight: Weight
    start: int
    stop: int


@dataclass(frozen=True)
class Block:
    """Rows of matrices with as many columns, one below the other; the first is number `start` of what is cut."""

    parts: tuple[Part, ...]
    start: int

    @property
    def count(self) -> int:
        return sum(part.stop - part.start for part in self.parts)

    @property
    def stop(self) -> int:
        return self.start + self.count

    @property
    def rows(self) -> slice:
        return slice(self.start, self.stop)

    @property
    def shape(self) -> tuple[int, int]:
        """Of its numbers in memory."""
        return self.count, _columns(self.parts[0].weight) + APART

    @property
    def bytes(self) -> int:
        """Of its numbers, widened."""
        rows, columns = self.shape
        return 4 * rows * columns

    def expect(self) -> None:
        for weight, start, stop in self.parts:
            weight.tensor.shard.file.expect(weight.rows(start, stop))


Act: TypeAlias = Callable[[Block, Float32Array, slice], None]
"""act(block, its rows, tokens): called for each block with each tile of tokens, on many threads."""


def below(tokens: int, *weights: Weight) -> list[Block]:
    """All rows of one matrix after those of the other, cut so that threads have work and BLAS is fast."""
    ends = [*accumulate(weight.tensor.shape[0] for weight in weights)]
    begins = [0, *ends[:-1]]

    def between(start: int, stop: int) -> Iterator[Part]:
        for weight, begin, end in zip(weights, begins, ends, strict=True):
            if max(start, begin) < min(stop, end):
                yield Part(weight, max(start, begin) - begin, min(stop, end) - begin)

    return [Block(tuple(between(p.start, p.stop)), p.start) for p in _cut(tokens, ends[-1], _columns(weights[0]))]


def beside(tokens: int, *weights: Weight) -> list[Block]:
    """The same rows of each of some matrices of one shape, which make a block together."""
    rows, columns = weights[0].tensor.shape[0], len(weights) * _columns(weights[0])
    parts = _cut(tokens, rows, columns, fewest=len(weights))
    return [Block(tuple(Part(w, p.start, p.stop) for w in weights), len(weights) * p.start) for p in parts]


def _cut(tokens: int, rows: int, columns: int, fewest: int = 1) -> list[slice]:
    """`fewest` times the fewest rows are enough."""
    enough = (FEWEST_OF_MANY if tokens > TILE else FEWEST_ROWS) // fewest
    most = max(1, BLOCK_BYTES // (4 * columns))
    parts = max(-(-rows // most), min(PARTS, rows // max(1, enough)), 1)
    return slices(rows, -(-rows // parts))


def _columns(weight: Weight) -> int:
    return weight.tensor.shape[1]


def tiles(tokens: int) -> list[slice]:
    """An even number of them, so that two threads have as much to do, unless one is enough."""
    parts = -(-tokens // TILE)
    return slices(tokens, -(-tokens // (parts + parts % 2 if parts > 1 else 1)))


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
            with rows_at_once():
                for part in parts[task]:
                    act(part)

        for _ in self._pool.map(_QUIET(act_on), tasks):
            pass

    def reader(self, weight: Weight) -> Rows:
        """Of widened rows, in memory that the same thread's next reading uses again."""
        return Rows(weight, self._memory.take)

    def array(self, *shape: int) -> Float32Array:
        """Of no particular numbers, in memory that the same thread's next call uses again."""
        return self._memory.take(4 * math.prod(shape)).view(np.float32).reshape(shape)

    def multiply(
        self, act: Act, tokens: int, blocks: Sequence[Block], then: Sequence[Block] = ()
    ) -> Iterator[Sequence[Block]]:
        """Acts on all `blocks`, and gives those of each stretch when it is done. While one is worked on, the disk
        reads the next; at the end the first ones of `then`.
        """
        stretches, last = self._stretches(blocks), then[: self._threads]
        weights = {id(part.weight): part.weight for block in blocks for part in block.parts}
        readers = {number: self.reader(weight) for number, weight in weights.items()}
        for stretch, following in zip(stretches, [*stretches[1:], last], strict=True):
            self._work_on(act, stretch, tiles(tokens), readers, following)
            yield stretch

    def _work_on(
        self,
        act: Act,
        stretch: Sequence[Block],
        cut: Sequence[slice],
        readers: Mapping[int, Rows],
        following: Sequence[Block],
    ) -> None:
        matrices = self._places(stretch)
        fill = partial(_fill, stretch, matrices, readers, following)
        if len(cut) == 1:  # what a block needs, its thread widens: none waits for the others

            def fill_and_act(number: int) -> None:
                fill(number)
                act(stretch[number], matrices[number], cut[0])

            self.share_out(fill_and_act, range(len(stretch)))
        else:
            self.share_out(fill, range(len(stretch)))
            parts = [(number, tile) for tile in cut for number in range(len(stretch))]
            self.share_out(lambda part: act(stretch[part[0]], matrices[part[0]], part[1]), parts)

    def apply(
        self, x: Float32Array, out: Float32Array, *linears: Linear, then: Sequence[Block] = ()
    ) -> Float32Array:
        """x W^T + b of each, side by side in `out`; x is (tokens, in), what comes out (tokens, out of all)."""
        bias = None
        if any(linear.bias for linear in linears):
            bias = np.concatenate(
                [vector(linear.bias) if linear.bias else np.zeros(linear.outputs, np.float32) for linear in linears]
            )

        def act(block: Block, matrix: Float32Array, tile: slice) -> None:
            part = out[tile, block.rows]
            np.matmul(x[tile], matrix.T, out=part)
            if bias is not None:
                part += bias[block.rows]

        for _ in self.multiply(act, len(x), below(len(x), *(linear.weight for linear in linears)), then):
            pass
        return out

    def _stretches(self, parts: Sequence[Block]) -> list[Sequence[Block]]:
        count = max(self._threads, STRETCH_BYTES // max(1, parts[0].bytes))
        return [parts[start : start + count] for start in range(0, len(parts), count)]

    def _places(self, stretch: Sequence[Block]) -> list[Float32Array]:
        """For the rows of each block, in memory that the next stretch uses again."""
        begins = [0, *accumulate(block.bytes for block in stretch)]
        memory = self._stretch.take(begins[-1])
        return [
            memory[begin : begin + block.bytes].view(np.float32).reshape(block.shape)[:, :-APART]
            for begin, block in zip(begins, stretch, strict=False)
        ]


def _fill(
    stretch: Sequence[Block],
    matrices: Sequence[Float32Array],
    readers: Mapping[int, Rows],
    following: Sequence[Block],
    number: int,
) -> None:
    """Widens the rows of one block of a stretch, and has the disk read its share of the following ones."""
    for ahead in following[number :: len(stretch)]:
        ahead.expect()
    done = 0
    for weight, start, stop in stretch[number].parts:
        readers[id(weight)].fill(matrices[number][done : done + stop - start], start, stop)
        done += stop - start


def vector(tensor: Tensor) -> Float32Array:
    """A small tensor, whole."""
    stored = tensor.shard.file.read(tensor.range)
    return widen(stored, tensor.dtype, tensor.shape).astype(np.float32, copy=False)


_QUIET = np.errstate(over="ignore", under="ignore", invalid="ignore", divide="ignore")
"""What is not finite is looked for in the results."""
