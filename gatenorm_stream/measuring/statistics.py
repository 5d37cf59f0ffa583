"""What one attention sublayer does to the stream, from its inputs and outputs at some tokens. In float64.

Ratios are taken token by token, then their mean: of sums over all tokens, one token's massive activations would be
nearly everything.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Activations = npt.NDArray[np.float32]
"""(length, hidden)"""
FIRST = 1
"""The first token is left out of means: it is an attention sink, and like no other."""


def influence(stream: Activations, attention: Activations) -> float:
    """Mean of 1 - cos(x, x + a): 0 if the stream keeps its direction ("ShortGPT", arXiv 2403.03853)."""
    x = stream.astype(np.float64)
    y = x + attention
    norms = np.linalg.norm(x, axis=-1) * np.linalg.norm(y, axis=-1)
    cosines = np.divide(np.vecdot(x, y), norms, out=np.ones(len(x)), where=norms > 0)
    return float(np.maximum(0.0, np.mean(1 - cosines)))  # rounding may leave it just below; nan stays


def mean_output(attention: Activations) -> npt.NDArray[np.float32]:
    """(hidden,), of all tokens but the first."""
    mean: npt.NDArray[np.float32] = attention[FIRST:].mean(0, dtype=np.float64).astype(np.float32)
    return mean


def constant_share(attention: Activations) -> float:
    """How much of the output is the same at every token but the first: |mean|^2 over the mean of |a|^2, 0 to 1."""
    outputs = attention[FIRST:].astype(np.float64)
    mean, squares = outputs.mean(0), float(np.vecdot(outputs, outputs).mean())
    return float(mean @ mean) / squares if squares else 1.0
