"""Rotary position embedding, of the kinds that Llama-shaped models have."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gatenorm_stream.checkpoint.tensors import Tensor
from gatenorm_stream.floats import widen

Float32Array = npt.NDArray[np.float32]
Float64Array = npt.NDArray[np.float64]
Turns = npt.NDArray[np.complex64]
"""cos + i sin of each angle, (length, dim / 2): two numbers turn as one complex number is multiplied."""


@dataclass(frozen=True)
class Llama3:
    """Llama 3.1's: waves under `context` / `high` tokens keep their speed, those over `context` / `low` do not.

    Source: `_compute_llama3_parameters` of transformers.
    """

    low: float
    high: float
    context: float

    def kept(self, rotary: Rotary) -> Float64Array:
        waves = self.context * rotary.unscaled_speeds / (2 * math.pi)
        return np.clip((waves - self.low) / (self.high - self.low), 0.0, 1.0)


@dataclass(frozen=True)
class Yarn:
    """YaRN (arXiv 2309.00071): what turns more than `fast` times within `context` keeps its speed, less than `slow`
    times does not, with bounds at whole numbers of a head, as transformers and llama.cpp have it.
    """

    context: float
    fast: float = 32.0
    slow: float = 1.0

    def kept(self, rotary: Rotary) -> Float64Array:
        first, last = (
            rotary.dim * math.log(self.context / (turns * 2 * math.pi)) / (2 * math.log(rotary.base))
            for turns in (self.fast, self.slow)
        )
        low, high = min(max(math.floor(first), 0), rotary.dim), min(math.ceil(last), rotary.dim - 1)
        slowness = (np.arange(rotary.dim // 2) - low) / max(0.001, high - low)
        return 1 - np.clip(slowness, 0.0, 1.0)


@dataclass(frozen=True)
class Rotary:
    """Number j of the first half of a head, (dim,), turns with number j of the second; `pairs`: 2j with 2j + 1.

    A position turns them by base^(-2j / dim), over `divisors`, (dim / 2,), if there are any, and over `factor` but
    for the share that `scaling` keeps. What is turned is multiplied by `gain`.
    """

    dim: int
    base: float
    pairs: bool = False
    factor: float = 1.0
    scaling: Llama3 | Yarn | None = None
    gain: float = 1.0
    divisors: Tensor | None = None

    @property
    def unscaled_speeds(self) -> Float64Array:
        """Radians a position, (dim / 2,), before `factor`. Reads `divisors`."""
        speeds: Float64Array = self.base ** (-np.arange(0, self.dim, 2) / self.dim)
        if self.divisors is None:
            return speeds
        stored = self.divisors.shard.file.read(self.divisors.range)
        return speeds / widen(stored, self.divisors.dtype, self.divisors.shape)

    def turns(self, length: int) -> Turns:
        """At the positions 0 to length - 1, times `gain`."""
        kept = self.scaling.kept(self) if self.scaling else 0.0
        angles = np.outer(np.arange(length), self.unscaled_speeds * (kept + (1 - kept) / self.factor))
        turns: Turns = (self.gain * np.exp(1j * angles)).astype(np.complex64)
        return turns

    def turned(self, heads: Float32Array, turns: Turns) -> Float32Array:
        """(length, heads, dim) in a new array, in pairs in any case: products stay the same.

        `turns` are those of each head beside each other, (length, heads * dim / 2): long runs are fast.
        """
        length, count, _ = heads.shape
        if self.pairs:
            numbers = heads.view(np.complex64)
        else:
            numbers = np.empty((length, count, self.dim // 2), np.complex64)
            numbers.real, numbers.imag = np.split(heads, 2, axis=-1)
        out: Float32Array = (numbers.reshape(length, -1) * turns).view(np.float32)
        return out.reshape(heads.shape)


def yarn_gain(factor: float) -> float:
    """What YaRN multiplies queries and keys by, where the model does not tell."""
    return 0.1 * math.log(factor) + 1 if factor > 1 else 1.0
