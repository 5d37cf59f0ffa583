"""The values of a GGUF file's metadata. Most are carried over as the bytes that they are."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

STRING, ARRAY, INT32 = 8, 9, 5
NUMBERS = {
    0: "<u1",
    1: "<i1",
    2: "<u2",
    3: "<i2",
    4: "<u4",
    5: "<i4",
    6: "<f4",
    7: "?",
    10: "<u8",
    11: "<i8",
    12: "<f8",
}
"""The kinds of numbers, as numpy writes them."""
NUMBER_BYTES = {kind: np.dtype(dtype).itemsize for kind, dtype in NUMBERS.items()}
MOST_READ = 1 << 12
"""Longer arrays are those of tokenizers, which nobody here reads."""


@dataclass(frozen=True, slots=True)
class Value:
    """`raw` are the bytes that stand behind the number of its `kind`."""

    kind: int
    raw: bytes

    def read(self) -> Any:
        """A number, a string, or a list of numbers; None for what is left unread: lists of strings, long lists."""
        match self.kind:
            case 8:
                return self.raw[8:].decode("utf-8", "replace")
            case 9:
                kind, count = struct.unpack_from("<IQ", self.raw)
                if kind not in NUMBERS or count > MOST_READ:
                    return None
                return np.frombuffer(self.raw, NUMBERS[kind], count, 12).tolist()
            case _:
                return np.frombuffer(self.raw, NUMBERS[self.kind])[0].item()


def string(text: str) -> Value:
    encoded = text.encode("utf-8")
    return Value(STRING, struct.pack("<Q", len(encoded)) + encoded)


def integers(numbers: Sequence[int]) -> Value:
    """Of 32 bits."""
    return Value(ARRAY, struct.pack(f"<IQ{len(numbers)}i", INT32, len(numbers), *numbers))
