"""A constant vector that stands in the place of removed attention, as a tensor of the output."""

from __future__ import annotations

from gatenorm_stream.checkpoint.tensors import Tensor
from gatenorm_stream.errors import FormatError
from gatenorm_stream.formats.edit import Added

NARROWEST = "BF16"
"""What is stored beside weights of 8 bits, or packed ones."""
STORED = ("F64", "F32", "F16", "BF16")
PLAIN = "without constants (--no-compensate)"


def beside(after: Tensor, name: str, shape: tuple[int, ...], values: bytes | None = None) -> Added:
    """A tensor behind `after`, of its dtype where that holds plain floats: zeros, or `values` in float32, rounded.

    Raises FormatError if a number is too large for the dtype.
    """
    dtype = after.dtype if after.dtype in STORED else NARROWEST
    return added_as(dtype, after, name, shape, values)


def added_as(dtype: str, after: Tensor, name: str, shape: tuple[int, ...], values: bytes | None = None) -> Added:
    """The same in a dtype of one's own."""
    stored = None if values is None else _rounded(values, dtype, name)
    return Added(name, shape, after.name, stored, None if dtype == after.dtype else dtype)


def _rounded(values: bytes, dtype: str, name: str) -> bytes:
    from gatenorm_stream.floats import narrow

    try:
        return narrow(values, dtype)
    except OverflowError:
        raise FormatError(f"{name} would hold a number too large for {dtype}; prune {PLAIN}") from None
