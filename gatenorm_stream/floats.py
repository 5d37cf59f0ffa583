"""Stored floating-point numbers as numpy arrays, bfloat16 and the 8-bit kinds included (which numpy lacks)."""

from __future__ import annotations

import functools
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

FloatArray: TypeAlias = npt.NDArray[np.floating[Any]]

_STORED: dict[str, Any] = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "BF16": "<u2",
    "F8_E4M3": "u1",
    "F8_E5M2": "u1",
}


def widen(stored: memoryview, dtype: str, shape: tuple[int, ...]) -> FloatArray:
    """The numbers in `stored`, little-endian, in a new array: float32, or float64 for F64. Exact for every dtype.

    Raises KeyError for other dtypes.
    """
    raw = np.frombuffer(stored, dtype=_STORED[dtype]).reshape(shape)
    if dtype == "BF16":
        bits = np.empty(shape, dtype=np.uint32)
        np.left_shift(raw, 16, out=bits, dtype=np.uint32, casting="unsafe")
        return bits.view(np.float32)
    if dtype in ("F8_E4M3", "F8_E5M2"):
        return _eight_bits(dtype)[raw]
    widened: FloatArray = raw.astype(np.float64 if dtype == "F64" else np.float32)
    return widened


@functools.cache
def _eight_bits(dtype: str) -> npt.NDArray[np.float32]:
    """What each byte stands for (OCP 8-bit floating point: E4M3 has no infinities, and one nan of each sign)."""
    byte = np.arange(256)
    if dtype == "F8_E5M2":
        return (byte << 8).astype(np.uint16).view(np.float16).astype(np.float32)
    exponent, mantissa = (byte >> 3) & 15, byte & 7
    magnitude = np.where(exponent == 0, mantissa / 512, (1 + mantissa / 8) * 2.0 ** (exponent - 7))
    magnitude[(byte & 127) == 127] = np.nan
    return np.where(byte < 128, magnitude, -magnitude).astype(np.float32)
