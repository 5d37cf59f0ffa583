"""Rotary position embedding, of the kinds that Llama-shaped models have."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gatenorm_stream.checkpoint.tensors import Tensor
from gatenorm_stream.floats import widen

Float32Array = npt.NDArray[np.float32]
Angles = tuple[Float32Array, Float32Array]
"""Cosines and sines, (length, dim / 2)."""


@dataclass(frozen=True)
class Llama3:
    """Waves longer than `context` / `low` are slowed by `factor`, those shorter than `context` / `high` are not."""

    factor: float
    low: float
    high: float
    context: float


@dataclass(frozen=True)
class Rotary:
    """Number j of the first half of a head, (dim,), turns with number j of the second; `pairs`: 2j with 2j + 1.

    A position turns them by base^(-2j / dim) / slowed, and further by `llama3` or over `divisors`, (dim / 2,).
    """

    dim: int
    base: float
    pairs: bool = False
    slowed: float = 1.0
    llama3: Llama3 | None = None
    divisors: Tensor | None = None

    def angles(self, length: int) -> Angles:
        """Of the positions 0 to length - 1. Reads `divisors`."""
        speeds = self.base ** (-np.arange(0, self.dim, 2) / self.dim) / self.slowed
        if self.llama3:
            fast = _share_of_fast(speeds, self.llama3)
            speeds *= fast + (1 - fast) / self.llama3.factor
        if self.divisors:
            stored = self.divisors.shard.file.read(self.divisors.range)
            speeds /= widen(stored, self.divisors.dtype, self.divisors.shape)
        angles = np.outer(np.arange(length), speeds)
        return np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)

    def turned(self, heads: Float32Array, angles: Angles) -> Float32Array:
        """(..., length, dim) in a new array, halves behind each other even of `pairs`: products stay the same."""
        cos, sin = angles
        half = self.dim // 2
        a, b = (heads[..., 0::2], heads[..., 1::2]) if self.pairs else (heads[..., :half], heads[..., half:])
        out = np.empty(heads.shape, np.float32)
        first, second = out[..., :half], out[..., half:]
        np.multiply(a, cos, out=first)
        first -= b * sin
        np.multiply(b, cos, out=second)
        second += a * sin
        return out


def _share_of_fast(speeds: npt.NDArray[np.float64], scaling: Llama3) -> npt.NDArray[np.float64]:
    """1 where a wave keeps its speed, 0 where it is slowed (Llama 3.1's rule, as transformers has it)."""
    waves = scaling.context * speeds / (2 * math.pi)
    return np.clip((waves - scaling.low) / (scaling.high - scaling.low), 0.0, 1.0)
