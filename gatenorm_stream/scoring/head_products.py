"""The norm of the product of two heads, whichever way they are stored, without ever forming it.

A head X, (head_dim, hidden), is known by its Gram matrix X X^T, since ||X^T Y||_F^2 = <X X^T, Y Y^T>. BLAS computes
one half of it, in the dtype of the stored numbers (float32; float64 for F64 weights), sums are float64. Where that
inner product nearly cancels or leaves the range of float32, the triangular factor of X (QR, float64) takes the Gram
matrix's place, which does not square the error, so that the relative error stays under 1e-5.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import cache, cached_property
from typing import Literal, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from gatenorm_stream.floats import FROM_HALF, FloatArray

Float64Array: TypeAlias = npt.NDArray[np.float64]
Side: TypeAlias = Literal["query", "key"]
Factor: TypeAlias = tuple[Float64Array, float]
"""R and s with (s R)^T (s R) = X X^T."""
RowBlocks: TypeAlias = Callable[[], Iterator[FloatArray]]
"""A pass over a stored matrix: neighbouring rows, in order; an array is valid until the next."""

_CANCELS = 0.05
"""An inner product of Gram matrices under this share of the product of their norms is computed again."""
_SAFE = (1e-28, FROM_HALF**4)
"""A Gram matrix whose squared norm is within these bounds neither underflowed nor overflowed in float32, nor was
anything inf or nan in what it was made from: its norm is at least the square of each number."""


class NotFiniteError(ValueError):
    """There is inf or nan in the projection of one side."""

    def __init__(self, side: Side) -> None:
        self.side = side
        super().__init__(f"inf or nan in {side}")


class HeadsOfOneSide(Protocol):
    """Heads X_h, (head_dim, hidden)."""

    def grams(self, which: range) -> Float64Array:
        """X_h X_h^T of each, (heads, head_dim, head_dim)."""

    def factor(self, head: int) -> Factor:
        """Raises NotFiniteError."""


class RowHeads:
    """Heads that `head_of` gives, (head_dim, hidden), and `for_gram`, (heads, head_dim, hidden), `at_once` of them.

    Both are valid until the next call. `for_gram` may give numbers of at least FROM_HALF instead of inf and nan.
    """

    def __init__(
        self,
        head_of: Callable[[int], FloatArray],
        for_gram: Callable[[range], FloatArray],
        side: Side,
        at_once: int = 1,
    ) -> None:
        self._head_of = head_of
        self._for_gram = for_gram
        self._side: Side = side
        self._at_once = at_once

    def grams(self, which: range) -> Float64Array:
        starts = range(which.start, which.stop, self._at_once)
        blocks = (range(start, min(start + self._at_once, which.stop)) for start in starts)
        grams = [gram(self._for_gram(block)) for block in blocks]
        return grams[0] if len(grams) == 1 else np.concatenate(grams)

    def factor(self, head: int) -> Factor:
        rows, scale = scaled(self._head_of(head), self._side)
        return _triangle(rows.T), scale


class ColumnHeads:
    """Heads that are columns of a stored matrix, (hidden, out): head h is its columns from `starts[h]` on.

    A head's columns are not read by themselves, since their bytes are scattered over the whole matrix: one pass
    over its rows gives the Gram matrices of all heads and, if any head needs it, a second one all triangular
    factors. Both are kept: (heads, head_dim, head_dim) in float64.
    """

    def __init__(self, blocks: RowBlocks, starts: Sequence[int], dim: int, side: Side) -> None:
        self._blocks = blocks
        self._starts = starts
        self._dim = dim
        self._side: Side = side

    def grams(self, which: range) -> Float64Array:
        return self._grams[which.start : which.stop]

    def factor(self, head: int) -> Factor:
        return self._factors[head]

    @cached_property
    def _grams(self) -> Float64Array:
        sums = np.zeros((len(self._starts), self._dim, self._dim))
        for block in self._blocks():
            for total, start in zip(sums, self._starts, strict=True):
                total += gram(block[:, start : start + self._dim].T)
        return sums

    @cached_property
    def _factors(self) -> list[Factor]:
        """Each head's rows that were read are held as their triangle, which more rows are put under."""
        found: list[Factor] = [(np.zeros((0, self._dim)), 0.0)] * len(self._starts)
        for block in self._blocks():
            for h, start in enumerate(self._starts):
                rows, scale = scaled(block[:, start : start + self._dim], self._side)
                triangle, before = found[h]
                most = max(scale, before) or 1.0
                found[h] = _triangle(np.vstack([triangle * (before / most), rows * (scale / most)])), most
        return found


def product_norms(query: HeadsOfOneSide, key: HeadsOfOneSide, queries: range, keys: range) -> tuple[float, ...]:
    """||X_h^T Y_g||_F of each of `queries`; each of `keys` is used by as many of them. Raises NotFiniteError."""
    group = len(queries) // len(keys)
    y = key.grams(keys).reshape(len(keys), 1, -1)
    x = query.grams(queries).reshape(len(keys), group, -1)
    inner, of_x, of_y = np.broadcast_arrays(np.vecdot(x, y), np.vecdot(x, x), np.vecdot(y, y))
    key_factor = cache(key.factor)
    norms = []
    for place, squares in enumerate(zip(inner.flat, of_x.flat, of_y.flat, strict=True)):
        if well_conditioned(*squares):
            norms.append(math.sqrt(squares[0]))
        else:
            (r, scale_x), (t, scale_y) = query.factor(queries[place]), key_factor(keys[place // group])
            norms.append(float(np.linalg.norm(r @ t.T)) * scale_x * scale_y)
    return tuple(norms)


def gram(a: FloatArray, b: FloatArray | None = None) -> Float64Array:
    """A B^T, in float64; of A A^T, BLAS computes one half. Of many matrices if there are more than two axes."""
    return (a @ (a if b is None else b).swapaxes(-1, -2)).astype(np.float64, copy=False)


def inner_products(a: Float64Array, b: Float64Array) -> Float64Array:
    """<A, B>, <A, A> and <B, B>."""
    return np.array([np.vdot(a, b), np.vdot(a, a), np.vdot(b, b)])


def squared_norm(x: FloatArray) -> float:
    return float(np.vecdot(x, x).sum(dtype=np.float64))


def well_conditioned(inner: float, squared_a: float, squared_b: float) -> bool:
    """Whether <A, B>, of matrices with these squared norms, keeps enough digits."""
    return in_range(squared_a, squared_b) and inner >= _CANCELS * (squared_a * squared_b) ** 0.5


def in_range(*squared_norms: float) -> bool:
    return all(_SAFE[0] < n < _SAFE[1] for n in squared_norms)


def scaled(x: FloatArray, side: Side) -> Factor:
    """`x` in float64 over its largest magnitude, and that magnitude (0 only if all of `x` is 0)."""
    peak = float(np.max(np.abs(x), initial=0.0))
    if not math.isfinite(peak):
        raise NotFiniteError(side)
    return x.astype(np.float64) / (peak or 1.0), peak


def _triangle(x: Float64Array) -> Float64Array:
    """R of X = Q R."""
    return np.asarray(np.linalg.qr(x, mode="r"))
