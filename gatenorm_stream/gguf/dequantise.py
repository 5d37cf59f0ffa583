"""Quantised numbers become floats, by the routines of the `gguf` package."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


def dequantise(rows: npt.NDArray[np.uint8], dtype: str) -> npt.NDArray[np.floating[Any]]:
    """The (rows, columns) numbers in whole blocks of bytes, in float32. Infinite scales give inf or nan."""
    from gguf import GGMLQuantizationType, quants

    with np.errstate(invalid="ignore", over="ignore"):
        numbers: npt.NDArray[np.floating[Any]] = quants.dequantize(rows, GGMLQuantizationType[dtype])
    return numbers
