"""Causal softmax attention of one key head, in float32."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

Float32Array = npt.NDArray[np.float32]

STRETCH = 64
"""Tokens that look back at once: many would compute much that is hidden from them, few are slow to multiply."""


def attend(
    queries: Float32Array, keys: Float32Array, values: Float32Array, out: Float32Array, window: int | None
) -> None:
    """Fills `out`, (length, group, dim), with what each query head takes of the key head that they share.

    `queries` are (length, group, dim), scaled; `keys` and `values` (length, dim). A token sees itself and those
    before it: the last `window` in all, if there is one. Tokens go a stretch at a time, against those alone that
    any of them sees.
    """
    length, group, dim = queries.shape
    room = np.empty(group * min(STRETCH, length) * length, np.float32)  # once: fresh memory is slow to touch
    for start in range(0, length, STRETCH):
        stop = min(start + STRETCH, length)
        first = max(0, start - window + 1) if window else 0
        seen = room[: group * (stop - start) * (stop - first)].reshape(-1, stop - first)
        np.matmul(queries[start:stop].reshape(-1, dim), keys[first:stop].T, out=seen)
        by_token = seen.reshape(stop - start, group, stop - first)
        later = by_token[..., start - first :]
        later += _hiding(stop - start)[:, None]
        if window:
            behind = np.arange(start, stop)[:, None] - np.arange(first, stop)
            np.copyto(by_token, np.float32(-np.inf), where=(behind >= window)[:, None])
        seen -= seen.max(-1, keepdims=True)
        np.exp(seen, out=seen)
        taken = (seen @ values[first:stop]).reshape(stop - start, group, -1)
        np.divide(taken, seen.sum(-1).reshape(stop - start, group, 1), out=out[start:stop])


@lru_cache(maxsize=2)
def _hiding(length: int) -> Float32Array:
    """To add to what tokens, (length, length), would take of each other: later ones are hidden."""
    return np.triu(np.full((length, length), -np.inf, np.float32), 1)
