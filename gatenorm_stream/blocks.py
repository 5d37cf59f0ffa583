"""Quantised numbers of GGUF files as float32: the bits that the package `gguf` gives, in a fraction of its time.

Source of the layouts: ggml, `dequantize_row_*` in ggml-quants.c. In every kind here a number is its code times the
scale of its group, of some kinds plus or minus an offset of the group. The product is exact (scale and code have at
most 24 bits together), so that there is one rounding at most, and one result.

The package spends its time on loops over 16 or 32 numbers of a group, which numpy starts anew for each. Here every
array is gone through in long runs: codes move in pieces of a group's width, scales are written out once per number.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

Floats: TypeAlias = npt.NDArray[np.float32]
Bytes: TypeAlias = npt.NDArray[np.uint8]
Codes: TypeAlias = npt.NDArray[np.integer[Any]]
"""uint8 or int8."""


class Quantised(NamedTuple):
    """`codes` are as many as there are numbers; `scales`, `added` and `taken` have one for each group of them."""

    codes: Codes
    scales: Floats
    added: Floats | None = None
    taken: Floats | None = None


def widen_blocks(out: npt.NDArray[np.floating], rows: Bytes, dtype: str) -> None:
    """Fills `out`, (rows, columns) in float32, with the numbers in rows of whole blocks. `dtype` is in `KINDS`.

    Infinite scales give inf or nan.
    """
    size, read = KINDS[dtype]
    with np.errstate(invalid="ignore", over="ignore"):
        found = read(rows.reshape(-1, size))
        np.copyto(out, found.codes.reshape(out.shape))
        np.multiply(out, _for_each(found.scales, out), out=out)
        if found.added is not None:
            np.add(out, _for_each(found.added, out), out=out)
        if found.taken is not None:
            np.subtract(out, _for_each(found.taken, out), out=out)


def _for_each(of_groups: Floats, out: npt.NDArray[np.floating]) -> Floats:
    """The number of each group once for each of its members."""
    return np.repeat(of_groups.reshape(-1), out.size // max(1, of_groups.size)).reshape(out.shape)


def _q4_0(blocks: Bytes) -> Quantised:
    return Quantised(_signed(_fields(blocks[:, 2:], 16, 4), 8), _halves(blocks, 0))


def _q4_1(blocks: Bytes) -> Quantised:
    return Quantised(_fields(blocks[:, 4:], 16, 4), _halves(blocks, 0), added=_halves(blocks, 2))


def _q5_0(blocks: Bytes) -> Quantised:
    return Quantised(_signed(_five_bits(blocks[:, 2:]), 16), _halves(blocks, 0))


def _q5_1(blocks: Bytes) -> Quantised:
    return Quantised(_five_bits(blocks[:, 4:]), _halves(blocks, 0), added=_halves(blocks, 2))


def _q8_0(blocks: Bytes) -> Quantised:
    return Quantised(np.ascontiguousarray(blocks[:, 2:]).view(np.int8), _halves(blocks, 0))


def _q2_k(blocks: Bytes) -> Quantised:
    both = _across(blocks[:, :16])
    scales, taken = _halves(blocks, 80) * (both & 15), _halves(blocks, 82) * (both >> 4)
    return Quantised(_fields(blocks[:, 16:80], 32, 2), _along(scales), taken=_along(taken))


def _q3_k(blocks: Bytes) -> Quantised:
    """The offset is zero where the bit of the mask is set."""
    codes = _fields(blocks[:, 32:96], 32, 2) | _fields(blocks[:, :32], 32, 1) << 2
    packed = _across(blocks[:, 96:108])
    lower = np.concatenate([packed[:8] & 15, packed[:8] >> 4])
    upper = np.concatenate([packed[8:] >> shift & 3 for shift in (0, 2, 4, 6)])
    return Quantised(_signed(codes, 4), _along(_halves(blocks, 108) * _signed(lower | upper << 4, 32)))


def _q4_k(blocks: Bytes) -> Quantised:
    scales, taken = _six_bit_scales(blocks)
    return Quantised(_fields(blocks[:, 16:], 32, 4), scales, taken=taken)


def _q5_k(blocks: Bytes) -> Quantised:
    scales, taken = _six_bit_scales(blocks)
    codes = _fields(blocks[:, 48:], 32, 4) | _fields(blocks[:, 16:48], 32, 1) << 4
    return Quantised(codes, scales, taken=taken)


def _q6_k(blocks: Bytes) -> Quantised:
    codes = _fields(blocks[:, :128], 64, 4) | _fields(blocks[:, 128:192], 32, 2) << 4
    return Quantised(_signed(codes, 32), _along(_halves(blocks, 208) * _across(blocks[:, 192:208]).view(np.int8)))


def _iq4_nl(blocks: Bytes) -> Quantised:
    return Quantised(_values(blocks[:, 2:]), _halves(blocks, 0))


def _iq4_xs(blocks: Bytes) -> Quantised:
    lower, upper = _across(blocks[:, 4:8]), np.ascontiguousarray(blocks[:, 2:4]).view("<u2").reshape(-1)
    scales = np.empty((8, len(blocks)), np.uint8)
    scales[::2], scales[1::2] = lower & 15, lower >> 4
    for group in range(8):
        scales[group] |= ((upper >> 2 * group & 3) << 4).astype(np.uint8)
    return Quantised(_values(blocks[:, 8:]), _along(_halves(blocks, 0) * _signed(scales, 32)))


KINDS: dict[str, tuple[int, Callable[[Bytes], Quantised]]] = {
    "Q4_0": (18, _q4_0),
    "Q4_1": (20, _q4_1),
    "Q5_0": (22, _q5_0),
    "Q5_1": (24, _q5_1),
    "Q8_0": (34, _q8_0),
    "Q2_K": (84, _q2_k),
    "Q3_K": (110, _q3_k),
    "Q4_K": (144, _q4_k),
    "Q5_K": (176, _q5_k),
    "Q6_K": (210, _q6_k),
    "IQ4_NL": (18, _iq4_nl),
    "IQ4_XS": (136, _iq4_xs),
}
"""The kinds that are widened here: the bytes of a block, and what reads blocks."""

_NON_LINEAR = np.array((-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113), np.int8)
"""What the codes of IQ4_NL and IQ4_XS stand for (ggml, `kvalues_iq4nl`)."""
_OF_LOWER, _OF_UPPER = np.tile(_NON_LINEAR, 16), np.repeat(_NON_LINEAR, 16)
"""The same for each byte, of the code in its lower and in its upper half."""


def _fields(stored: Bytes, width: int, bits: int) -> Bytes:
    """Codes of so many bits: of `width` neighbouring bytes the lowest bits come first, then the next ones."""
    packed = np.ascontiguousarray(stored)
    return _side_by_side([packed >> shift & (1 << bits) - 1 for shift in range(0, 8, bits)], width)


def _values(stored: Bytes) -> npt.NDArray[np.int8]:
    indices = stored.astype(np.intp)
    return _side_by_side([_OF_LOWER.take(indices), _OF_UPPER.take(indices)], 16).view(np.int8)


def _side_by_side(parts: list[Codes], width: int) -> Bytes:
    """`width` of the first part, as many of the next one, and so on: moved as items of that many bytes."""
    joined = np.empty((parts[0].size // width, len(parts)), f"V{width}")
    for n, part in enumerate(parts):
        joined[:, n] = part.reshape(-1).view(joined.dtype)
    return joined.view(np.uint8).reshape(len(parts[0]), -1)


def _five_bits(stored: Bytes) -> Codes:
    """The fifth bits come first, 32 of them in 4 bytes."""
    fifth = np.unpackbits(stored[:, :4], axis=1, bitorder="little")
    return _fields(stored[:, 4:], 16, 4) | fifth << 4


def _six_bit_scales(blocks: Bytes) -> tuple[Floats, Floats]:
    """Scales and offsets of the 8 groups of a block of Q4_K and Q5_K: 6 bits each, in 12 bytes."""
    packed = _across(blocks[:, 4:16])
    scales, taken, rest = packed[:4], packed[4:8], packed[8:]
    scales = np.concatenate([scales & 63, rest & 15 | scales >> 2 & 48])
    taken = np.concatenate([taken & 63, rest >> 4 | taken >> 2 & 48])
    return _along(_halves(blocks, 0) * scales), _along(_halves(blocks, 2) * taken)


def _halves(blocks: Bytes, start: int) -> Floats:
    """Of each block the float16 number that begins at byte `start`."""
    return np.ascontiguousarray(blocks[:, start : start + 2]).view("<f2").reshape(-1).astype(np.float32)


def _signed(codes: Codes, offset: int) -> npt.NDArray[np.int8]:
    return np.subtract(codes.view(np.int8), np.int8(offset))


def _across(of_blocks: Bytes) -> Bytes:
    """A row for each byte of a block, so that a run is as long as there are blocks."""
    return np.ascontiguousarray(of_blocks.T)


def _along(of_groups: Floats) -> Floats:
    """The reverse: those of the first block's groups come first."""
    return np.ascontiguousarray(of_groups.T)
