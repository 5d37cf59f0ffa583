"""Causal softmax attention of one key head, in float32."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Float32Array = npt.NDArray[np.float32]

SCORES = 1 << 19
"""Numbers of the square of tokens that are held at once."""
FEWEST_TOKENS = 16


def attend(queries: Float32Array, keys: Float32Array, values: Float32Array, window: int | None) -> Float32Array:
    """What each query head, (group, length, dim), takes of the key head that they share, (length, dim).

    A token sees itself and those before it: the last `window` in all, if there is one. Tokens go a stretch at a
    time, against those alone that any of them sees.
    """
    group, length, _ = queries.shape
    scaled = queries * np.float32(queries.shape[-1] ** -0.5)
    out = np.empty((group, length, values.shape[-1]), np.float32)
    step = max(FEWEST_TOKENS, SCORES // (group * length))
    for start in range(0, length, step):
        stop = min(start + step, length)
        first = max(0, start - window + 1) if window else 0
        shares = scaled[:, start:stop] @ keys[first:stop].T
        behind = np.arange(start, stop)[:, None] - np.arange(first, stop)
        hidden = (behind < 0) | (behind >= window) if window else behind < 0
        np.copyto(shares, np.float32(-np.inf), where=hidden)
        shares -= shares.max(-1, keepdims=True)
        np.exp(shares, out=shares)
        total = shares.sum(-1, keepdims=True)
        np.divide(shares @ values[first:stop], total, out=out[:, start:stop])
    return out
