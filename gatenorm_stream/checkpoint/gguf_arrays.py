"""Arrays of a GGUF file's metadata that are as long as a vocabulary. No count in them is believed."""

from __future__ import annotations

import struct
from itertools import repeat

from gatenorm_stream.checkpoint.gguf_metadata import ARRAY, STRING, Value

MOST_ENTRIES = 1 << 21
"""Merges of a vocabulary of 260,000 tokens are fewer than 2^20."""
INT32, FLOAT32 = 5, 6
START = 12
"""Behind the number of the entries' kind and their count."""


def read_strings(value: Value) -> list[str]:
    """Raises ValueError if it is no array of strings, has too many, ends early, or one is not UTF-8."""
    kind, count, raw = *_array(value), value.raw
    if kind != STRING:
        raise ValueError(f"an array of values of the kind {kind}, not of strings")
    if count > (len(raw) - START) // 8:
        raise ValueError(f"{count} strings, which its {len(raw)} bytes can't hold")
    strings, position, length_at = [], START, struct.Struct("<Q").unpack_from
    for _ in repeat(None, count):
        start = position + 8
        if start > len(raw):
            raise ValueError("strings that end early")
        position = start + length_at(raw, position)[0]
        if position > len(raw):
            raise ValueError("strings that end early")
        strings.append(raw[start:position].decode("utf-8"))
    return strings


def read_numbers(value: Value) -> tuple[int | float, ...]:
    """Integers or floats of 32 bits. Raises ValueError if it is no such array, has too many, or ends early."""
    kind, count = _array(value)
    if kind not in (INT32, FLOAT32):
        raise ValueError(f"an array of values of the kind {kind}, not of int32 or float32")
    if count > (len(value.raw) - START) // 4:
        raise ValueError(f"{count} numbers, which its {len(value.raw)} bytes can't hold")
    return struct.unpack_from(f"<{count}{'i' if kind == INT32 else 'f'}", value.raw, START)


def _array(value: Value) -> tuple[int, int]:
    """The kind of its entries, and how many."""
    if value.kind != ARRAY or len(value.raw) < START:
        raise ValueError(f"a value of the kind {value.kind}, not an array")
    kind, count = struct.unpack_from("<IQ", value.raw)
    if count > MOST_ENTRIES:
        raise ValueError(f"{count} entries, and at most {MOST_ENTRIES} are read")
    return kind, count
