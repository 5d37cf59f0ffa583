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
the narrow side. Matrix products run in the dtype of the rows (float32; float64 for F64 weights), sums in float64.
Where the inner product nearly cancels, or leaves the range of float32, it is computed again in float64 by a way
that does not square the error, so that the relative error stays under 1e-5.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from gatenorm_stream.floats import FloatArray
from gatenorm_stream.heads import Heads

HeadOf: TypeAlias = Callable[[int], FloatArray]
"""Head h of a projection, shape (head_dim, hidden)."""

Float64Array: TypeAlias = npt.NDArray[np.float64]

_CANCELS = 0.05
"""An inner product of Gram matrices under this share of the product of their norms is computed again."""
_VANISHES = 1e-5
"""A sum of squared dot products under this share of the product of the squared norms is computed again."""
_SAFE = (1e-28, 1e28)
"""Squares of float32 numbers within these bounds neither underflow nor overflow when they are multiplied."""
_TILE = 1024

_QUIET = np.errstate(over="ignore", invalid="ignore")
"""Overflow is expected and looked for in the results, not warned of."""


class NotFiniteError(ValueError):
    """A projection holds inf or nan; `projection` says which: "query" or "key"."""

    def __init__(self, projection: Literal["query", "key"]) -> None:
        self.projection = projection
        super().__init__(f"the {projection} projection holds inf or nan")


@_QUIET
def per_head(query: HeadOf, key: HeadOf, heads: Heads, key_head: int) -> tuple[float, ...]:
    """||Q_h^T K_g||_F for each query head h that uses key head g = `key_head`.

    The layer's score is the square root of the sum of the squares over all its heads. Raises NotFiniteError.
    """
    k = key(key_head)
    gram_k = k @ k.T
    norms = []
    for h in range(key_head * heads.group, (key_head + 1) * heads.group):
        q = query(h)
        gram_q = q @ q.T
        squared = _inner(gram_q, gram_k)
        if _well_conditioned(squared, _inner(gram_q, gram_q), _inner(gram_k, gram_k)):
            norms.append(math.sqrt(squared))
        else:
            norms.append(_narrow_product_norm(q, k))
    return tuple(norms)


@_QUIET
def joint(query: HeadOf, key: HeadOf, heads: Heads) -> float:
    """||Q^T K||_F with K repeated for each query head.

    Equal to ||S^T K||_F, where S, (keys * dim, hidden), is the sum of each group's query heads: for grouped-query
    attention the product shrinks by the square of the group. Raises NotFiniteError.
    """

    def block(g: int) -> tuple[FloatArray, FloatArray]:
        """The group's sum, in float64 if it has more than one head, and its key head."""
        first, *others = range(g * heads.group, (g + 1) * heads.group)
        total = query(first)
        if others:
            total = total.astype(np.float64)
            for h in others:
                total += query(h)
        return total, key(g)

    def narrow_block(g: int) -> tuple[FloatArray, FloatArray]:
        total, k = block(g)
        return total.astype(k.dtype, copy=False), k

    squared = queries = keys = 0.0
    for i in range(heads.keys):
        q, k = narrow_block(i)
        for j in range(i, heads.keys):
            other_q, other_k = (q, k) if i == j else narrow_block(j)
            gram_q, gram_k = q @ other_q.T, k @ other_k.T
            weight = 1 if i == j else 2
            squared += weight * _inner(gram_q, gram_k)
            queries += weight * _inner(gram_q, gram_q)
            keys += weight * _inner(gram_k, gram_k)
    if _well_conditioned(squared, queries, keys):
        return math.sqrt(squared)
    return _wide_product_norm(lambda: (block(g) for g in range(heads.keys)))


@_QUIET
def stored(query: HeadOf, key: HeadOf, heads: Heads) -> tuple[float, ...]:
    """||Q_h K^T||_F for each query head h, with all of K as it is stored.

    The layer's score is the square root of the sum of the squares. Raises NotFiniteError.
    """
    norms = []
    for h in range(heads.queries):
        q = query(h)
        parts = [_outer_product_norm(q, key(g)) for g in range(heads.keys)]
        norms.append(math.hypot(*parts))
    return tuple(norms)


def _outer_product_norm(q: FloatArray, k: FloatArray) -> float:
    """||Q K^T||_F; in float64 if the dot products nearly vanish or the numbers leave float32's range."""
    product = q @ k.T
    squared, queries, keys = _inner(product, product), float(np.vdot(q, q)), float(np.vdot(k, k))
    if _in_range(queries, keys) and squared >= _VANISHES * queries * keys:
        return math.sqrt(squared)
    q, scale_q = _scaled(q, "query")
    k, scale_k = _scaled(k, "key")
    return float(np.linalg.norm(q @ k.T)) * scale_q * scale_k


def _narrow_product_norm(q: FloatArray, k: FloatArray) -> float:
    """||Q^T K||_F in float64 without squaring: with Q^T = U R and K^T = V T (QR), it is ||R T^T||_F."""
    q, scale_q = _scaled(q, "query")
    k, scale_k = _scaled(k, "key")
    if not scale_q or not scale_k:
        return 0.0
    r, t = (np.asarray(np.linalg.qr(x.T, mode="r")) for x in (q, k))
    return float(np.linalg.norm(r @ t.T)) * scale_q * scale_k


def _wide_product_norm(blocks: Callable[[], Iterator[tuple[FloatArray, FloatArray]]]) -> float:
    """||sum over blocks of Q_b^T K_b||_F in float64, one tile of the product at a time."""
    scale_q = scale_k = 0.0
    for q, k in blocks():
        scale_q = max(scale_q, _scaled(q, "query")[1])
        scale_k = max(scale_k, _scaled(k, "key")[1])
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


def _inner(a: FloatArray, b: FloatArray) -> float:
    """The inner product of two matrices, summed in float64."""
    return float(np.vdot(a.astype(np.float64, copy=False), b.astype(np.float64, copy=False)))


def _well_conditioned(inner: float, squared_a: float, squared_b: float) -> bool:
    """Whether <A, B>, of matrices with these squared norms, keeps enough digits."""
    return _in_range(squared_a, squared_b) and inner >= _CANCELS * (squared_a * squared_b) ** 0.5


def _in_range(*squared_norms: float) -> bool:
    return all(_SAFE[0] < n < _SAFE[1] for n in squared_norms)


def _scaled(x: FloatArray, projection: Literal["query", "key"]) -> tuple[Float64Array, float]:
    """`x` in float64 over its largest magnitude, and that magnitude (0 only if all of `x` is 0)."""
    peak = float(np.max(np.abs(x), initial=0.0))
    if not math.isfinite(peak):
        raise NotFiniteError(projection)
    return x.astype(np.float64) / (peak or 1.0), peak
