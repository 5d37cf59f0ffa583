"""Stored floating-point numbers as numpy arrays, bfloat16 and the 8-bit kinds included (which numpy lacks).

Narrow numbers are widened by integers: their bits, shifted to where float32 has its exponent and mantissa, are a
float32 that is too small by a power of two. That is exact, subnormal numbers included, and takes a quarter of the
time of numpy's own cast from float16. Widening and shifting are two steps, since numpy does both at once in a small
buffer, which takes longer. Where the order within a row does not matter, two numbers are taken as one of twice the
width, so that nothing need be cast.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from gatenorm_stream.blocks import KINDS, widen_blocks

FloatArray: TypeAlias = npt.NDArray[np.floating[Any]]
Bits: TypeAlias = npt.NDArray[np.unsignedinteger[Any]]

STORED: dict[str, Any] = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<u2",
    "BF16": "<u2",
    "F8_E4M3": "u1",
    "F8_E5M2": "u1",
    "F8_E8M0": "u1",
}
"""What each dtype is read as: narrow numbers as their bits."""


_INFINITE, _SIGN = 0x7C00, 0x8000
"""Of float16."""
FROM_HALF = 2.0**16
"""What is inf or nan as float16 is at least as large where it was widened without a look at it."""


def widened(dtype: str) -> type[np.floating[Any]]:
    """float32, or float64 for F64."""
    return np.float64 if dtype == "F64" else np.float32


def widen(stored: memoryview, dtype: str, shape: tuple[int, ...]) -> FloatArray:
    """The numbers in `stored`, little-endian, in a new array: float32, or float64 for F64. Exact for every dtype.

    Raises KeyError for other dtypes.
    """
    raw = np.frombuffer(stored, dtype=STORED[dtype]).reshape(shape)
    out: FloatArray = np.empty(shape, dtype=widened(dtype))
    widen_into(out, raw, dtype)
    return out


def widen_into(out: FloatArray, raw: npt.NDArray[Any], dtype: str) -> None:
    """Fills `out`, in `widened(dtype)`, with the numbers of `raw`, in `STORED[dtype]`, of the same shape.

    The quantised kinds of GGUF come as rows of bytes.
    """
    match dtype:
        case "BF16":
            bits = out.view(np.uint32)
            np.copyto(bits, raw)
            np.left_shift(bits, 16, out=bits)
        case "F16":
            _widen_halves(out, raw)
        case "F8_E5M2":
            _widen_halves(out, np.left_shift(raw, 8, dtype=np.uint16))
        case "F8_E4M3":
            _shift_and_scale(out, raw, shift=20, power=120)
            out[(raw & 0x7F) == 0x7F] = math.nan
        case "F8_E8M0":
            np.copyto(out, np.ldexp(np.float32(1), raw.astype(np.int32) - 127))
            out[raw == 0xFF] = math.nan
        case "F32" | "F64":
            np.copyto(out, raw)
        case _ if dtype in KINDS:
            widen_blocks(out, raw, dtype)
        case _:
            np.copyto(out, dequantise(raw, dtype))


def in_pairs(dtype: str, columns: int) -> bool:
    """Whether rows of so many numbers can be widened by `widen_pairs`."""
    return dtype in ("BF16", "F16") and columns % 2 == 0


def widen_pairs(out: FloatArray, raw: Bits, dtype: str, *, finite: bool = False) -> None:
    """As `widen_into`, but in each row of `out` the numbers at even places of its row come first, then the others.

    With `finite`, nobody looks for inf and nan, which come out of float16 as numbers of at least FROM_HALF then.
    The rows of `raw` stand one after the other.
    """
    half = raw.shape[1] // 2
    if dtype == "BF16":
        pairs, bits = raw.view("<u4"), out.view(np.uint32)
        np.left_shift(pairs, 16, out=bits[:, :half])
        np.bitwise_and(pairs, np.uint32(0xFFFF0000), out=bits[:, half:])
    elif not finite and _not_finite(raw):
        numbers = raw.view("<f2")
        np.copyto(out[:, :half], numbers[:, ::2])
        np.copyto(out[:, half:], numbers[:, 1::2])
    else:
        signed, wide = raw.view("<i4"), out.view(np.int32)
        np.left_shift(signed, 16, out=wide[:, :half])
        np.right_shift(wide[:, :half], 3, out=wide[:, :half])
        np.right_shift(signed, 3, out=wide[:, half:])
        np.bitwise_and(wide, np.int32(0x0FFFE000 - 2**31), out=wide)
        np.multiply(out, np.float32(2.0**112), out=out)


@contextmanager
def rows_at_once() -> Iterator[None]:
    """Has numpy take rows that stand apart as they are.

    Otherwise it copies rows of fewer than 4096 numbers to a buffer of 8192, to take some of them at once (since
    numpy 2.3), and a step takes three times as long.
    """
    before = np.setbufsize(64)
    try:
        yield
    finally:
        np.setbufsize(before)


def _not_finite(raw: Bits) -> bool:
    return bool(raw.view("<i2").max(initial=0) >= _INFINITE or raw.max(initial=0) >= _INFINITE | _SIGN)


def _widen_halves(out: FloatArray, raw: Bits) -> None:
    if _not_finite(raw):
        np.copyto(out, raw.view("<f2"))
    else:
        _shift_and_scale(out, raw, shift=13, power=112)


def _shift_and_scale(out: FloatArray, raw: Bits, shift: int, power: int) -> None:
    """Extends the sign, shifts, and clears the copies of the sign between sign and exponent."""
    bits = out.view(np.int32)
    magnitude = (1 << shift + 8 * raw.itemsize - 1) - 1
    np.copyto(bits, raw.view(f"<i{raw.itemsize}"))
    np.left_shift(bits, shift, out=bits)
    np.bitwise_and(bits, np.int32(magnitude - 2**31), out=bits)
    np.multiply(out, np.float32(2.0**power), out=out)


def narrow(values: bytes, dtype: str) -> bytes:
    """Finite little-endian float32 `values` as `dtype` stores them, rounded to the nearest, ties to even.

    Raises OverflowError if one of them is beyond `dtype`, KeyError for dtypes that are not F64, F32, F16 or BF16.
    """
    wide = np.frombuffer(values, "<f4")
    stored: npt.NDArray[Any]
    if dtype == "BF16":
        bits = wide.view("<u4")
        bits = bits + 0x7FFF + (bits >> 16 & 1)
        stored = (bits >> 16).astype("<u2")
        beyond = (stored & 0x7F80 == 0x7F80).any()
    else:
        with np.errstate(over="ignore"):
            stored = wide.astype({"F64": "<f8", "F32": "<f4", "F16": "<f2"}[dtype])
        beyond = not np.isfinite(stored).all()
    if beyond:
        raise OverflowError(dtype)
    return bytes(stored.tobytes())


def dequantise(rows: npt.NDArray[np.uint8], dtype: str) -> npt.NDArray[np.floating[Any]]:
    """The (rows, columns) numbers in whole blocks of bytes, as float32, by the package `gguf`: every kind.

    Infinite scales give inf or nan.
    """
    from gguf import GGMLQuantizationType, quants

    with np.errstate(invalid="ignore", over="ignore"):
        numbers: npt.NDArray[np.floating[Any]] = quants.dequantize(rows, GGMLQuantizationType[dtype])
    return numbers
