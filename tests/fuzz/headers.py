"""Hostile safetensors files: the header lies about itself, its tensors, or both."""

from __future__ import annotations

import struct
from typing import Any

from hypothesis import strategies as st

from tests.fuzz.hostile_json import Pairs, Raw, dump, integers, names, nested, values

DTYPES = ("F64", "F32", "F16", "BF16", "I64", "U8", "BOOL", "F8_E4M3", "F4", "F6_E2M3", "C64", "Q4", "f32", "")
BITS = {"F64": 64, "F32": 32, "F16": 16, "BF16": 16, "I64": 64, "C64": 64, "F4": 4, "F6_E2M3": 6}
LENGTHS = (0, 1, 7, 100_000_000, 100_000_001, 24_000_000, 24_000_001, 2**31, 2**32, 2**63, 2**64 - 8, 2**64 - 1)

sizes = st.one_of(st.integers(0, 5), integers, st.sampled_from([2**40, 2**62, 2**64 - 1]))


@st.composite
def files(draw: st.DrawFn) -> bytes:
    """Tensors laid end to end as they should be; then a few things are spoiled."""
    entries: list[tuple[Any, Any]] = []
    position = 0
    for n in range(draw(st.integers(0, 4))):
        dtype = draw(st.sampled_from(DTYPES[:11]))
        shape = draw(st.lists(st.integers(0, 4), max_size=3))
        elements = 1
        for side in shape:
            elements *= side
        size = -(-elements * BITS.get(dtype, 8) // 8)
        entries.append((f"t{n}", {"dtype": dtype, "shape": shape, "data_offsets": [position, position + size]}))
        position += size
    if draw(st.booleans()):
        entries.append(("__metadata__", draw(st.one_of(st.just({"format": "pt"}), values))))
    for _ in range(draw(st.integers(0, 2))):
        _spoil(draw, entries, position)
    text = dump(Pairs(tuple(draw(st.permutations(entries)))))
    text += draw(st.sampled_from([b"", b" ", b"  \n", b"\0", b"x"]))
    length = draw(st.one_of(st.just(len(text)), st.just(len(text)), st.just(len(text)), st.sampled_from(LENGTHS)))
    data = bytes(max(0, min(position, 4096) + draw(st.sampled_from([0, 0, 0, 0, -1, 1, 8]))))
    return struct.pack("<Q", length) + text + data


def _spoil(draw: st.DrawFn, entries: list[tuple[Any, Any]], position: int) -> None:
    places = [n for n, (_, entry) in enumerate(entries) if isinstance(entry, dict) and "dtype" in entry]
    if not places or not draw(st.integers(0, 5)):
        entries.append((draw(names), draw(values)))
        return
    place = draw(st.sampled_from(places))
    name, entry = entries[place]
    match entry.get("data_offsets"):
        case [int(start), int(stop)]:
            pass
        case _:
            start, stop = 0, 0
    match draw(st.sampled_from(["dtype", "shape", "offsets", "field", "double", "name", "extra"])):
        case "dtype":
            entry = entry | {"dtype": draw(st.one_of(st.sampled_from(DTYPES), values))}
        case "shape":
            entry = entry | {"shape": draw(st.one_of(st.lists(sizes, max_size=4), values))}
        case "offsets":
            moved = st.sampled_from([-1, 0, 1, 8, 2**63, 2**64])
            shifted = st.tuples(moved, moved).map(lambda by: [start + by[0], stop + by[1]])
            entry = entry | {"data_offsets": draw(st.one_of(shifted, st.just([stop, start]), values))}
        case "field":
            dropped = draw(st.sampled_from(["dtype", "shape", "data_offsets"]))
            entry = Pairs(tuple((k, v) for k, v in entry.items() if k != dropped))
        case "double":
            entries.append((name, entry))
        case "name":
            name = draw(names)
        case "extra":
            entry = entry | {"extra": draw(st.one_of(values, st.just(nested(150)), st.just(Raw("NaN"))))}
    entries[place] = name, entry


def wrap(text: bytes, data: bytes) -> bytes:
    return struct.pack("<Q", len(text)) + text + data
