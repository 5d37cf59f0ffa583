"""Gate-Norm: how strongly an attention sublayer couples queries and keys, from its weights alone.

Source: "Gate-Norm", arXiv 2512.20636: the Frobenius norm of the query-key product W_Q W_K^T; the sublayers with
the lowest norm are removed first. The paper's text leaves open how heads are joined, so three readings are
computed, each exact. With Q_h and K_g the (head_dim, hidden) row blocks of `q_proj.weight` and `k_proj.weight`
as stored (out, in), and g(h) the key head that query head h uses (grouped-query attention):

    per-head   sqrt( sum_h ||Q_h^T K_g(h)||_F^2 )     what each head's softmax sees
    joint      ||Q^T K||_F,  K repeated for each query head: all heads as one matrix
    stored     ||Q K^T||_F   on the two matrices as they are stored

Biases, rotary embedding and norms are outside the score. Low score = weakly coupled = removed first.

No (hidden, hidden) product is formed: ||Q^T K||_F^2 = <Q Q^T, K K^T>, the inner product of two Gram matrices of
the narrow side, of which BLAS computes one half. Products run in the dtype of the rows (float32; float64 for F64
weights), sums in float64. Where the inner product nearly cancels, or leaves the range of float32, it is computed
again in float64 by a way that does not square the error, so that the relative error stays under 1e-5.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Protocol

import numpy as np

from gatenorm_stream.families.heads import Heads
from gatenorm_stream.floats import FloatArray
from gatenorm_stream.scoring.head_products import (
    Float64Array,
    HeadsOfOneSide,
    gram,
    in_range,
    inner_products,
    product_norms,
    scaled,
    squared_norm,
    well_conditioned,
)

WHOLE_HEAD = slice(None)


class HeadOf(Protocol):
    """Those rows of head h of a projection, (head_dim, hidden); the array is valid until the next call."""

    def __call__(self, head: int, rows: slice = WHOLE_HEAD, /) -> FloatArray: ...


_VANISHES = 1e-5
"""A sum of squared dot products under this share of the product of the squared norms is computed again."""
_SUM_CANCELS = 0.01
"""A sum of heads whose squared norm is under this share of theirs is added up in float64."""
_GRAM_BYTES = 8 << 20
"""Gram matrices of query heads that are held at once."""
_TILE = 1024
_GRAMS_BYTES = 24
"""Of two Gram matrices, each in float32 and float64, a number of each."""
_PRODUCT_BYTES = 12
"""Of a number of a product, in float32 and float64."""
MEMORY = 32 << 20
"""Bytes that a reading of whole projections may hold at once, unless told otherwise."""

_QUIET = np.errstate(over="ignore", invalid="ignore")
"""Overflow is expected and looked for in the results, not warned of."""


@_QUIET
def per_head(query: HeadsOfOneSide, key: HeadsOfOneSide, heads: Heads, key_heads: range) -> tuple[float, ...]:
    """||Q_h^T K_g||_F for each query head h that uses a key head g of `key_heads`.

    The layer's score is the square root of the sum of the squares over all its heads. Raises NotFiniteError.
    """
    group = heads.group
    step = max(1, _GRAM_BYTES // (8 * heads.dim**2 * group))
    norms: list[float] = []
    for start in range(key_heads.start, key_heads.stop, step):
        stop = min(start + step, key_heads.stop)
        norms += product_norms(query, key, range(start * group, stop * group), range(start, stop))
    return tuple(norms)


@_QUIET
def joint(query: HeadOf, key: HeadOf, heads: Heads, memory: int = MEMORY, rows_at_once: int = 1 << 30) -> float:
    """||Q^T K||_F with K repeated for each query head. Holds about `memory` bytes beside a few heads.

    Equal to ||S^T K||_F, where S, (keys * dim, hidden), is the sum of each group's query heads: for grouped-query
    attention the product shrinks by the square of the group. Heads are added up `rows_at_once` of their rows at a
    time, which should fit in the cache. Raises NotFiniteError.
    """
    total = _GroupSums(query, heads.group, rows_at_once)
    one = _GroupSums(key, 1, rows_at_once)
    head = key(0)
    blocks = _blocks(heads.keys, head, memory // 2, math.isqrt(memory // _GRAMS_BYTES))
    if len(blocks) > 1 and _one_side_fits(heads, head, memory):
        sums = _one_side_after_the_other(total, one, heads)
    else:
        sums = np.zeros(3)
        for block in blocks:
            q, k = (side.stacked(block, heads.dim) for side in (total, one))
            sums += inner_products(gram(q), gram(k))
            for g in range(block.stop, heads.keys):
                sums += 2 * inner_products(gram(q, total(g, heads.dim)), gram(k, key(g)))
    squared, queries, keys = sums.tolist()
    if well_conditioned(squared, queries, keys):
        return math.sqrt(squared)

    def exact(g: int) -> FloatArray:
        return _exact_sum_of_heads(query, range(g * heads.group, (g + 1) * heads.group))

    return _wide_product_norm(lambda: ((exact(g), key(g)) for g in range(heads.keys)))


@_QUIET
def stored(query: HeadOf, key: HeadOf, heads: Heads, memory: int = MEMORY) -> tuple[float, ...]:
    """||Q_h K^T||_F for each query head h, with all of K as it is stored. Holds about `memory` bytes beside a head.

    The layer's score is the square root of the sum of the squares. Raises NotFiniteError.
    """
    norms: list[float] = []
    for block in _blocks(heads.queries, query(0), memory, memory // (_PRODUCT_BYTES * heads.dim)):
        q = _stacked(query, block)
        by_head = q.reshape(len(block), -1, q.shape[1])
        queries = [squared_norm(head) for head in by_head]
        parts: list[list[float]] = [[] for _ in block]
        for g in range(heads.keys):
            k = key(g)
            keys = squared_norm(k)
            products = (q @ k.T).astype(np.float64, copy=False).reshape(len(block), -1)
            squares = np.einsum("hi,hi->h", products, products)
            for part, head, norm, squared in zip(parts, by_head, queries, squares.tolist(), strict=True):
                if in_range(norm, keys) and squared >= _VANISHES * norm * keys:
                    part.append(math.sqrt(squared))
                else:
                    part.append(_outer_product_norm(head, k))
        norms += [math.hypot(*part) for part in parts]
    return tuple(norms)


def _one_side_fits(heads: Heads, head: FloatArray, memory: int) -> bool:
    """Whether all key heads, and after them both Gram matrices of their rows, fit in `memory`."""
    rows = heads.keys * len(head)
    return max(heads.keys * head.nbytes, 2 * rows * rows * head.itemsize) <= memory


def _one_side_after_the_other(total: _GroupSums, one: _GroupSums, heads: Heads) -> Float64Array:
    """<S S^T, K K^T>, <S S^T, S S^T> and <K K^T, K K^T>, each query head read once: of S only its products stay."""
    q = total.stacked(range(heads.keys), heads.dim)
    of_q = q @ q.T
    k = one.stacked(range(heads.keys), heads.dim, into=q)
    of_k = k @ k.T
    strips = (slice(start, start + heads.dim) for start in range(0, len(of_q), heads.dim))
    sums = np.zeros(3)
    for strip in strips:
        sums += inner_products(of_q[strip].astype(np.float64), of_k[strip].astype(np.float64))
    return sums


def _blocks(count: int, head: FloatArray, memory: int, rows: int) -> list[range]:
    """Neighbouring heads, as many as fit in `memory` and have so many `rows`, at least one: the larger a product,
    the faster its flops."""
    size = max(1, min(memory // max(1, head.nbytes), rows // len(head)))
    return [range(start, min(start + size, count)) for start in range(0, count, size)]


def _stacked(head_of: HeadOf, block: range) -> FloatArray:
    """The heads of `block`, one below the other."""
    first = head_of(block.start)
    stacked = np.empty((len(block), *first.shape), first.dtype)
    stacked[0] = first
    for index, head in enumerate(block[1:], start=1):
        stacked[index] = head_of(head)
    return stacked.reshape(-1, first.shape[1])


class _GroupSums:
    """The sum of the query heads that use key head g.

    In the dtype of the heads; added up in float64 if they nearly cancel.
    """

    def __init__(self, head_of: HeadOf, group: int, rows_at_once: int) -> None:
        self._head_of = head_of
        self._group = group
        self._rows_at_once = rows_at_once

    def __call__(self, g: int, dim: int) -> FloatArray:
        if self._group == 1:
            return self._head_of(g)
        return self.stacked(range(g, g + 1), dim)

    def stacked(self, block: range, dim: int, into: FloatArray | None = None) -> FloatArray:
        """Those of `block`, each of `dim` rows, one below the other; `into` this array if they fit exactly."""
        row = self._head_of(block.start * self._group, slice(0, 1))
        shape = len(block) * dim, row.shape[1]
        fits = into is not None and (into.shape, into.dtype) == (shape, row.dtype)
        out = into if into is not None and fits else np.empty(shape, row.dtype)
        for place, g in enumerate(block):
            self._fill(out[place * dim : (place + 1) * dim], g)
        return out

    def _fill(self, out: FloatArray, g: int) -> None:
        which = range(g * self._group, (g + 1) * self._group)
        squares = of_sum = 0.0
        for start in range(0, len(out), self._rows_at_once):
            rows = slice(start, min(start + self._rows_at_once, len(out)))
            part = out[rows]
            for h in which:
                head = self._head_of(h, rows)
                if h == which.start:
                    np.copyto(part, head)
                else:
                    part += head
                if len(which) > 1:
                    squares += squared_norm(head)
            if len(which) > 1:
                of_sum += squared_norm(part)
        if len(which) > 1 and not of_sum >= _SUM_CANCELS * squares:
            np.copyto(out, _exact_sum_of_heads(self._head_of, which), casting="same_kind")


def _exact_sum_of_heads(head_of: HeadOf, which: range) -> FloatArray:
    """In float64 if there is more than one head."""
    first = head_of(which.start)
    if len(which) == 1:
        return first
    total = first.astype(np.float64)
    for h in which[1:]:
        total += head_of(h)
    return total


def _outer_product_norm(q: FloatArray, k: FloatArray) -> float:
    """||Q K^T||_F in float64."""
    q, scale_q = scaled(q, "query")
    k, scale_k = scaled(k, "key")
    return float(np.linalg.norm(q @ k.T)) * scale_q * scale_k


def _wide_product_norm(blocks: Callable[[], Iterator[tuple[FloatArray, FloatArray]]]) -> float:
    """||sum over blocks of Q_b^T K_b||_F in float64, one tile of the product at a time."""
    scale_q = scale_k = 0.0
    for q, k in blocks():
        scale_q = max(scale_q, scaled(q, "query")[1])
        scale_k = max(scale_k, scaled(k, "key")[1])
    if not scale_q or not scale_k:
        return 0.0
    q_tiles, k_tiles = (
        [slice(start, start + _TILE) for start in range(0, x.shape[1], _TILE)] for x in next(blocks())
    )
    squared = 0.0
    for rows in q_tiles:
        for columns in k_tiles:
            product = sum(
                (q[:, rows].astype(np.float64) / scale_q).T @ (k[:, columns].astype(np.float64) / scale_k)
                for q, k in blocks()
            )
            squared += float(np.vdot(product, product))
    return math.sqrt(squared) * scale_q * scale_k
