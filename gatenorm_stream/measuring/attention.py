"""Causal softmax attention of one key head, in float32."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Float32Array = npt.NDArray[np.float32]

STRETCH = 64
"""Tokens that look back at once: many would compute much that is hidden from them, few are slow to multiply."""


def attend(queries: Float32Array, keys: Float32Array, values: Float32Array, window: int | None) -> Float32Array:
    """What each query head, (group, length, dim), takes of the key head that they share, (length, dim).

    A token sees itself and those before it: the last `window` in all, if there is one. Tokens go a stretch at a
    time, against those alone that any of them sees.
    """
    group, length, dim = queries.shape
    scale = np.float32(dim**-0.5)
    out = np.empty((group, length, values.shape[-1]), np.float32)
    room = np.empty(group * min(STRETCH, length) * length, np.float32)  # once: fresh memory is slow to touch
    for start in range(0, length, STRETCH):
        stop = min(start + STRETCH, length)
        first = max(0, start - window + 1) if window else 0
        looking = queries[:, start:stop].reshape(-1, dim) * scale
        shares = room[: len(looking) * (stop - first)].reshape(len(looking), -1)
        np.matmul(looking, keys[first:stop].T, out=shares)
        behind = np.arange(start, stop)[:, None] - np.arange(first, stop)
        hidden = (behind < 0) | (behind >= window) if window else behind < 0
        by_head = shares.reshape(group, stop - start, -1)
        if window:
            np.copyto(by_head, np.float32(-np.inf), where=hidden)
        else:
            np.copyto(by_head[..., start - first :], np.float32(-np.inf), where=hidden[:, start - first :])
        shares -= shares.max(-1, keepdims=True)
        np.exp(shares, out=shares)
        taken = shares @ values[first:stop]
        taken /= shares.sum(-1, keepdims=True)
        out[:, start:stop] = taken.reshape(group, stop - start, -1)
    return out
