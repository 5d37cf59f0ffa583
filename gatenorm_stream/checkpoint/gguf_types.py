"""The kinds of numbers that a GGUF file stores, as ggml numbers and lays them out."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class StoredType:
    """Rows are stored in blocks of `elements` numbers, each in `bytes` bytes."""

    name: str
    elements: int
    bytes: int


TYPES = {
    0: StoredType("F32", 1, 4),
    1: StoredType("F16", 1, 2),
    2: StoredType("Q4_0", 32, 18),
    3: StoredType("Q4_1", 32, 20),
    6: StoredType("Q5_0", 32, 22),
    7: StoredType("Q5_1", 32, 24),
    8: StoredType("Q8_0", 32, 34),
    10: StoredType("Q2_K", 256, 84),
    11: StoredType("Q3_K", 256, 110),
    12: StoredType("Q4_K", 256, 144),
    13: StoredType("Q5_K", 256, 176),
    14: StoredType("Q6_K", 256, 210),
    16: StoredType("IQ2_XXS", 256, 66),
    17: StoredType("IQ2_XS", 256, 74),
    18: StoredType("IQ3_XXS", 256, 98),
    19: StoredType("IQ1_S", 256, 50),
    20: StoredType("IQ4_NL", 32, 18),
    21: StoredType("IQ3_S", 256, 110),
    22: StoredType("IQ2_S", 256, 82),
    23: StoredType("IQ4_XS", 256, 136),
    24: StoredType("I8", 1, 1),
    25: StoredType("I16", 1, 2),
    26: StoredType("I32", 1, 4),
    27: StoredType("I64", 1, 8),
    28: StoredType("F64", 1, 8),
    29: StoredType("IQ1_M", 256, 56),
    30: StoredType("BF16", 1, 2),
    34: StoredType("TQ1_0", 256, 54),
    35: StoredType("TQ2_0", 256, 66),
    39: StoredType("MXFP4", 32, 17),
    40: StoredType("NVFP4", 64, 36),
    41: StoredType("Q1_0", 128, 18),
}

NUMBERS = {t.name: number for number, t in TYPES.items()}
"""The number of a type by its name."""
OPAQUE = frozenset({"Q1_0"})
"""What the `gguf` package can't dequantise."""
QUANTISED = frozenset(t.name for t in TYPES.values() if t.elements > 1) - OPAQUE
_UNKNOWN = "type "


def type_name(number: int) -> str:
    """Of a type that is not known here (a later one of ggml, or one of a fork), its number stands for the name."""
    return TYPES[number].name if number in TYPES else f"{_UNKNOWN}{number}"


def type_number(name: str) -> int:
    """What `type_name` made the name of."""
    return NUMBERS[name] if name in NUMBERS else int(name.removeprefix(_UNKNOWN))


def is_known(name: str) -> bool:
    """Whether it is known how many bytes so many numbers of this type take."""
    return name in NUMBERS
