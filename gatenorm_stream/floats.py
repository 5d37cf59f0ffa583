"""Stored floating-point numbers as numpy arrays, bfloat16 included (which numpy does not know)."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

FloatArray: TypeAlias = npt.NDArray[np.floating[Any]]

_STORED: dict[str, Any] = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}


def widen(stored: memoryview, dtype: str, shape: tuple[int, ...]) -> FloatArray:
    """The numbers in `stored`, little-endian, in a new array: float32, or float64 for F64. Exact for every dtype.

    Raises KeyError for other dtypes.
    """
    raw = np.frombuffer(stored, dtype=_STORED[dtype]).reshape(shape)
    if dtype == "BF16":
        bits = np.empty(shape, dtype=np.uint32)
        np.left_shift(raw, 16, out=bits, dtype=np.uint32, casting="unsafe")
        return bits.view(np.float32)
    widened: FloatArray = raw.astype(np.float64 if dtype == "F64" else np.float32)
    return widened
