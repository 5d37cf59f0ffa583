"""The header of a GGUF file: parse, validate, build. Pure functions.

A file is a magic, a version, how many tensors and how many pieces of metadata it has, these, what each tensor is,
and the tensors' bytes, each aligned. Numbers are little-endian. Format:
https://github.com/ggml-org/ggml/blob/master/docs/gguf.md

A header comes from a stranger. No length in it is believed before the bytes are there, and tensors must stand as
llama.cpp demands: in the order of the header, one behind the other, each aligned. As in llama.cpp, bytes behind the
last one don't matter. Of a type that is not known, a tensor takes all bytes up to the next one.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest

from gatenorm_stream.checkpoint.gguf_metadata import ARRAY, NUMBER_BYTES, STRING, Value, string
from gatenorm_stream.checkpoint.gguf_types import TYPES, type_name, type_number
from gatenorm_stream.checkpoint.tensors import Header, TensorInfo, shown
from gatenorm_stream.errors import HeaderError
from gatenorm_stream.sources.ranges import ByteRange, aligned

MAGIC = b"GGUF"
VERSIONS = (2, 3)
MAX_HEADER_BYTES = 1 << 26
"""Vocabularies of 260,000 tokens take less than 2^24."""
MOST_DIMENSIONS = 4
LONGEST_NAME = 1 << 10
DEFAULT_ALIGNMENT = 32
MOST_ALIGNMENT = 1 << 16
MOST_BYTES = 8
"""That a number takes, of whatever type."""


class IncompleteError(Exception):
    """The header continues beyond the bytes that were given."""


@dataclass(frozen=True)
class GgufHeader:
    """`metadata` in the order of the file; `header` tells of the tensors, in the order of their bytes."""

    metadata: Mapping[str, Value]
    header: Header


def alignment(metadata: Mapping[str, Value]) -> int:
    """Bytes. Raises ValueError if it is no power of two."""
    found = metadata.get("general.alignment")
    value = DEFAULT_ALIGNMENT if found is None else found.read()
    if type(value) is not int or not 1 <= value <= MOST_ALIGNMENT or value & (value - 1):
        raise ValueError(f"general.alignment is {value!r}, not a power of two")
    return value


def parse_header(data: bytes, file_size: int, where: str) -> GgufHeader:
    """`data` are the first bytes of a file of `file_size` bytes; `where` names it in errors.

    Raises IncompleteError if the header is longer than `data`, HeaderError for anything that the format does not
    allow.
    """
    reader = _Reader(data)
    try:
        if (magic := reader.take(4)) != MAGIC:
            raise ValueError(f"it begins with {magic!r}, not with GGUF")
        version = reader.u32()
        if version not in VERSIONS:
            swapped = int.from_bytes(version.to_bytes(4, "little"), "big") in VERSIONS
            raise ValueError(
                "its numbers are big-endian" if swapped else f"it is of version {version}; 2 and 3 are read"
            )
        tensor_count, value_count = reader.u64(), reader.u64()
        metadata: dict[str, Value] = {}
        for _ in range(value_count):
            key = reader.text()
            if not key or key in metadata:
                raise ValueError(f"the key {shown(key)} stands twice" if key else "a key is empty")
            metadata[key] = reader.value(key)
        align = alignment(metadata)
        entries = [_entry(reader) for _ in range(tensor_count)]
        data_start = aligned(reader.position, align)
        tensors = _placed(entries, align, file_size - data_start)
    except ValueError as error:
        raise HeaderError(f"{where} has a bad GGUF header: {error}; download or convert the file again") from error
    end = data_start + max((t.data.stop for t in tensors), default=0)
    if end > file_size:
        raise HeaderError(
            f"{where} should be {end} bytes long by its header but is {file_size}: truncated or damaged; download "
            "it again"
        )
    return GgufHeader(metadata, Header(tensors, {}, data_start))


def build_header(metadata: Mapping[str, Value], tensors: Sequence[TensorInfo]) -> bytes:
    """For tensors that stand where `with_offsets` puts them; padded, so that their bytes begin aligned."""
    parts = [MAGIC, struct.pack("<IQQ", VERSIONS[-1], len(tensors), len(metadata))]
    for key, value in metadata.items():
        parts += [string(key).raw, struct.pack("<I", value.kind), value.raw]
    for t in tensors:
        shape = t.shape[::-1]
        parts += [string(t.name).raw, struct.pack(f"<I{len(shape)}Q", len(shape), *shape)]
        parts.append(struct.pack("<IQ", type_number(t.dtype), t.data.start))
    size = sum(map(len, parts))
    return b"".join((*parts, bytes(aligned(size, alignment(metadata)) - size)))


def padding(size: int, align: int) -> int:
    """Bytes that stand behind `size` bytes up to the next aligned place."""
    return aligned(size, align) - size


@dataclass(frozen=True, slots=True)
class _Entry:
    """What the header says of a tensor; `size` in bytes, None if its type is not known."""

    name: str
    shape: tuple[int, ...]
    number: int
    start: int
    size: int | None


def _entry(reader: _Reader) -> _Entry:
    """The one that comes next. `shape` has the fastest dimension last."""
    name = reader.text()
    dimensions = reader.u32()
    if not 1 <= dimensions <= MOST_DIMENSIONS:
        raise ValueError(f"{shown(name)} has {dimensions} dimensions")
    shape = tuple(reader.u64() for _ in range(dimensions))[::-1]
    number, start = reader.u32(), reader.u64()
    known = TYPES.get(number)
    if known and shape[-1] % known.elements:
        raise ValueError(f"{shown(name)} has rows of {shape[-1]}, which blocks of {known.elements} do not divide")
    size = known.bytes if known else 1
    for n in (*shape[:-1], shape[-1] // known.elements if known else shape[-1]):
        size *= n
        if not 0 < size < 1 << 63:
            raise ValueError(f"{shown(name)} has a shape that is empty or larger than any file")
    return _Entry(name, shape, number, start, size if known else None)


def _placed(entries: Sequence[_Entry], align: int, room: int) -> tuple[TensorInfo, ...]:
    """`room` is how many bytes stand behind the header."""
    tensors: dict[str, TensorInfo] = {}
    position = 0
    for entry, following in zip_longest(entries, entries[1:]):
        called = shown(entry.name)
        if entry.name in tensors:
            raise ValueError(f"the tensor {called} stands twice")
        if entry.start != position:
            raise ValueError(f"{called} stands at {entry.start} instead of {position}")
        size = entry.size
        if size is None:
            size = (following.start if following else room) - entry.start
            most = aligned(MOST_BYTES * math.prod(entry.shape), align)
            if not 0 < size <= most and not (following is None and size > 0):
                raise ValueError(f"{called}, of the unknown type {entry.number}, would take {size} bytes")
            size = min(size, most)
        data = ByteRange(entry.start, entry.start + size)
        tensors[entry.name] = TensorInfo(entry.name, type_name(entry.number), entry.shape, data)
        position = aligned(data.stop, align)
    return tuple(tensors.values())


class _Reader:
    """Takes values from the front of `data`; raises IncompleteError where it ends, ValueError for bad values."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.position = 0

    def take(self, count: int) -> bytes:
        start = self.position
        self._skip(count)
        return self._data[start : self.position]

    def u32(self) -> int:
        return int.from_bytes(self.take(4), "little")

    def u64(self) -> int:
        return int.from_bytes(self.take(8), "little")

    def text(self) -> str:
        if (length := self.u64()) > LONGEST_NAME:
            raise ValueError(f"a name in it is {length} bytes long")
        return self.take(length).decode("utf-8")

    def value(self, key: str) -> Value:
        kind = self.u32()
        start = self.position
        if kind == ARRAY:
            self._skip_array(key)
        else:
            self._skip_one(key, kind)
        return Value(kind, self._data[start : self.position])

    def _skip_one(self, key: str, kind: int) -> None:
        if kind == STRING:
            self._skip(self.u64())
        elif kind in NUMBER_BYTES:
            self._skip(NUMBER_BYTES[kind])
        else:
            raise ValueError(f"{shown(key)} has a value of the unknown kind {kind}")

    def _skip_array(self, key: str) -> None:
        kind, count = self.u32(), self.u64()
        if kind in NUMBER_BYTES:
            self._skip(count * NUMBER_BYTES[kind])
        elif kind == STRING:
            self._skip_strings(count)
        else:
            raise ValueError(f"{shown(key)} is an array of values of the kind {kind}")

    def _skip_strings(self, count: int) -> None:
        position, data, last = self.position, self._data, len(self._data) - 8
        length_at = struct.Struct("<Q").unpack_from
        for _ in range(count):
            if position > last:
                raise IncompleteError
            position += 8 + length_at(data, position)[0]
        self._skip(position - self.position)

    def _skip(self, count: int) -> None:
        if count > len(self._data) - self.position:
            raise IncompleteError
        self.position += count
