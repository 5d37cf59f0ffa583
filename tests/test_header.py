"""The safetensors header against the reference implementation: files that it wrote, and broken ones."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from safetensors import SafetensorError, deserialize
from safetensors.numpy import save

from gatenorm_stream.checkpoint.safetensors_header import (
    BLOCK,
    DTYPE_BITS,
    build_header,
    header_range,
    parse_header,
)
from gatenorm_stream.checkpoint.tensors import Header, TensorInfo
from gatenorm_stream.errors import HeaderError
from gatenorm_stream.sources.ranges import ByteRange


def parse(data: bytes) -> Header:
    where = header_range(data[:8], len(data), "file")
    return parse_header(data[where.start : where.stop], len(data), "file")


def file_of(header: object, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


names = st.text(min_size=1, max_size=12).filter(lambda n: n != "__metadata__" and n.isprintable())
shapes = st.lists(st.integers(0, 4), max_size=3)


@given(
    st.dictionaries(names, shapes, min_size=1, max_size=6), st.dictionaries(names, st.text(max_size=9), max_size=3)
)
def test_reads_what_the_reference_wrote(shapes: dict[str, list[int]], metadata: dict[str, str]) -> None:
    data = save({name: np.zeros(shape, np.float32) for name, shape in shapes.items()}, metadata)
    header = parse(data)
    assert {t.name: list(t.shape) for t in header.tensors} == shapes
    assert header.metadata == metadata
    assert all(t.dtype == "F32" and len(t.data) == 4 * t.elements for t in header.tensors)


@given(
    st.dictionaries(
        names, st.tuples(st.sampled_from([d for d in DTYPE_BITS if DTYPE_BITS[d] >= 8]), shapes), max_size=6
    ),
    st.dictionaries(names, st.text(max_size=9), max_size=3),
)
def test_the_reference_reads_what_was_built(
    tensors: dict[str, tuple[str, list[int]]], metadata: dict[str, str]
) -> None:
    placed, position = [], 0
    for name, (dtype, shape) in tensors.items():
        size = int(np.prod(shape, dtype=int)) * DTYPE_BITS[dtype] // 8
        placed.append(TensorInfo(name, dtype, tuple(shape), ByteRange(position, position + size)))
        position += size
    head = build_header(placed, metadata)
    data = head + bytes(range(256)) * (position // 256 + 1)
    data = data[: len(head) + position]
    assert len(head) % 8 == 0
    read = dict(deserialize(data))
    assert {n: (t["dtype"], t["shape"]) for n, t in read.items()} == tensors
    for t in placed:
        assert bytes(read[t.name]["data"]) == data[len(head) + t.data.start : len(head) + t.data.stop]
    assert parse(data).metadata == metadata


@given(st.integers(0, 9999))
def test_data_begin_where_they_are_asked_to(place: int) -> None:
    info = TensorInfo("a", "U8", (4,), ByteRange(0, 4))
    head = build_header([info], {}, data_at=place)
    assert len(head) % 8 == 0
    assert place % 8 or len(head) % BLOCK == place % BLOCK
    assert parse(head + bytes(4)).tensors == (info,)


def test_golden_bytes() -> None:
    """The bytes of a header, so that a change of the format written is seen."""
    infos = [TensorInfo("a", "BF16", (2, 3), ByteRange(0, 12)), TensorInfo("b", "F32", (), ByteRange(12, 16))]
    assert build_header(infos, {"format": "pt"}) == (
        b"\x90\x00\x00\x00\x00\x00\x00\x00"
        b'{"__metadata__":{"format":"pt"},"a":{"dtype":"BF16","shape":[2,3],"data_offsets":[0,12]},'
        b'"b":{"dtype":"F32","shape":[],"data_offsets":[12,16]}} '
    )


GOOD = {"a": {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]}}


def changed(**entry: object) -> bytes:
    return file_of({"a": {**GOOD["a"], **entry}}, bytes(4))


BROKEN = {
    "empty file": b"",
    "seven bytes": bytes(7),
    "length beyond the file": struct.pack("<Q", 100) + b"{}",
    "length of 2**64 - 1": struct.pack("<Q", 2**64 - 1) + b"{}",
    "not JSON": file_of(b"{]"),
    "an array": file_of(b"[]"),
    "not UTF-8": file_of(b'{"\xff":1}'),
    "deep": file_of(b'{"a":' + b"[" * 100_000),
    "NaN": file_of(b'{"a":NaN}'),
    "a number of 10000 digits": file_of(b'{"a":' + b"9" * 10_000 + b"}"),
    "duplicate key": file_of(
        b'{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}',
        bytes(4),
    ),
    "entry is no object": file_of({"a": 1}),
    "missing field": file_of({"a": {"dtype": "U8", "shape": [0]}}),
    "unknown dtype": changed(dtype="Q8"),
    "dtype is no string": changed(dtype=8),
    "negative size": changed(shape=[-4]),
    "fractional size": changed(shape=[4.0]),
    "boolean size": changed(shape=[True]),
    "size of 2**64": changed(shape=[2**64, 0]),
    "product overflows": changed(shape=[2**40, 2**40]),
    "shape does not fill the bytes": changed(shape=[3]),
    "offsets fall": changed(data_offsets=[4, 0]),
    "negative offset": changed(data_offsets=[-4, 0]),
    "three offsets": changed(data_offsets=[0, 2, 4]),
    "data cut short": file_of(GOOD, bytes(3)),
    "data left over": file_of(GOOD, bytes(5)),
    "metadata is no object": file_of({"__metadata__": []}),
    "metadata of numbers": file_of({"__metadata__": {"a": 1}}),
    "hole": file_of({**GOOD, "b": {"dtype": "U8", "shape": [1], "data_offsets": [5, 6]}}, bytes(6)),
    "overlap": file_of({**GOOD, "b": {"dtype": "U8", "shape": [2], "data_offsets": [3, 5]}}, bytes(5)),
}


@pytest.mark.parametrize("data", BROKEN.values(), ids=BROKEN.keys())
def test_broken_files_are_one_line_errors_for_both(data: bytes) -> None:
    with pytest.raises(HeaderError) as caught:
        parse(data)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400
    if b'},"a"' not in data:  # a key that stands twice: the reference takes the last
        with pytest.raises(SafetensorError):
            deserialize(data)


def accepted_by_reference(data: bytes) -> bool:
    try:
        deserialize(data)
    except SafetensorError:
        return False
    return True


@given(st.data())
def test_agrees_with_the_reference_on_mutated_files(draw: st.DataObject) -> None:
    original = save({"a": np.zeros((2, 3), np.float32), "b": np.zeros(2, np.float16)}, {"format": "np"})
    data = bytearray(original)
    for _ in range(draw.draw(st.integers(1, 3))):
        position = draw.draw(st.integers(0, len(data) - 1))
        match draw.draw(st.sampled_from(["set", "insert", "delete"])):
            case "set":
                data[position] = draw.draw(st.sampled_from(b'{}[],:"0123456789-.eE \\ab\x00\xff'))
            case "insert":
                data.insert(position, draw.draw(st.sampled_from(b'{}[],:"0123456789-.eE \\ab\x00\xff')))
            case "delete":
                del data[position]
    try:
        parse(bytes(data))
        ours = True
    except HeaderError:
        ours = False
    if ours != accepted_by_reference(bytes(data)):
        assert not ours
        assert b'"a"' in bytes(data).partition(b'"a"')[2] or b'"b"' in bytes(data).partition(b'"b"')[2]


@given(st.binary(max_size=64))
@example(file_of({}))
def test_random_bytes_never_raise_anything_else(data: bytes) -> None:
    try:
        parse(data)
    except HeaderError:
        return
    assert accepted_by_reference(data)


def test_a_header_that_would_end_behind_its_file(tmp_path: Path) -> None:
    with pytest.raises(HeaderError, match="truncated"):
        header_range(struct.pack("<Q", 20_000_000), 1000, "file")
