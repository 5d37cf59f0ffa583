"""The values of a GGUF file's metadata. Most are carried over as the bytes that they are."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

STRING, ARRAY, INT32 = 8, 9, 5
NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
"""The kinds of numbers, as `struct` writes them."""
NUMBER_BYTES = {kind: struct.calcsize(f"<{code}") for kind, code in NUMBERS.items()}
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
                return list(struct.unpack_from(f"<{count}{NUMBERS[kind]}", self.raw, 12))
            case _:
                return struct.unpack(f"<{NUMBERS[self.kind]}", self.raw)[0]


def string(text: str) -> Value:
    encoded = text.encode("utf-8")
    return Value(STRING, struct.pack("<Q", len(encoded)) + encoded)


def integers(numbers: Sequence[int]) -> Value:
    """Of 32 bits."""
    return Value(ARRAY, struct.pack(f"<IQ{len(numbers)}i", INT32, len(numbers), *numbers))
