"""The header of a safetensors file: parse, validate, build. Pure functions.

A file is 8 bytes of little-endian header length N, N bytes of JSON, then the tensors' bytes. The JSON maps a
tensor's name to its dtype, shape and `data_offsets` (half-open, counted from the end of the header);
`__metadata__` maps strings to strings. Format: https://github.com/huggingface/safetensors#format

A header comes from a stranger. What it claims is compared with the file's true size before it is believed, and
the rules are those of the reference implementation: no holes, no overlaps, no byte left over. Where they are
stricter, docs/reliability.md says why.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Mapping
from typing import Any, NoReturn

from gatenorm_stream.checkpoint.json_text import MAX_JSON_BYTES, parse_json
from gatenorm_stream.checkpoint.tensors import Header, TensorInfo, shown
from gatenorm_stream.errors import HeaderError
from gatenorm_stream.sources.ranges import ByteRange

PREFIX_BYTES = 8
BLOCK = 4096
"""File systems share the bytes of files in blocks of this size, where they stand alike in both."""

DTYPE_BITS = {
    "BOOL": 8,
    "F4": 4,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
    "U8": 8,
    "I8": 8,
    "F8_E5M2": 8,
    "F8_E4M3": 8,
    "F8_E5M2FNUZ": 8,
    "F8_E4M3FNUZ": 8,
    "F8_E8M0": 8,
    "I16": 16,
    "U16": 16,
    "F16": 16,
    "BF16": 16,
    "I32": 32,
    "U32": 32,
    "F32": 32,
    "C64": 64,
    "F64": 64,
    "I64": 64,
    "U64": 64,
}


def header_range(prefix: bytes, file_size: int, where: str) -> ByteRange:
    """Where the JSON stands, from a file's first 8 bytes.

    Raises HeaderError if the file is too short to hold what `prefix` claims.
    """
    if len(prefix) < PREFIX_BYTES:
        raise HeaderError(f"{where} is {file_size} bytes long: too short for a safetensors file; download it again")
    (length,) = struct.unpack("<Q", prefix)
    if length > MAX_JSON_BYTES:
        raise HeaderError(
            f"{where} claims a header of {length} bytes (at most {MAX_JSON_BYTES} are allowed): "
            "not a safetensors file"
        )
    if PREFIX_BYTES + length > file_size:
        raise HeaderError(
            f"{where} claims a header of {length} bytes but is only {file_size} bytes long: "
            "truncated, or not a safetensors file; download it again"
        )
    return ByteRange(PREFIX_BYTES, PREFIX_BYTES + length)


def parse_header(text: bytes, file_size: int, where: str) -> Header:
    """Parses and validates the JSON part `text` of a file of `file_size` bytes; `where` names it in errors.

    Raises HeaderError for anything that the format does not allow.
    """

    def bad(why: str) -> NoReturn:
        raise HeaderError(f"{where} has a bad safetensors header: {why}; download or export the file again")

    try:
        entries = parse_json(text, constants=False)
    except ValueError as error:
        bad(f"it is not valid JSON ({error})")
    if not isinstance(entries, dict):
        bad("it is not a JSON object")

    metadata = entries.pop("__metadata__", None)
    if metadata is None:
        metadata = {}
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        bad("__metadata__ must map strings to strings")

    tensors = sorted((_tensor(name, entry, bad) for name, entry in entries.items()), key=lambda t: (t.data, t.name))
    position = 0
    for tensor in tensors:
        if tensor.data.start != position:
            gap = "overlaps the tensor before it" if tensor.data.start < position else "leaves a hole before it"
            bad(f"{shown(tensor.name)} {gap}")
        position = tensor.data.stop
    data_start = PREFIX_BYTES + len(text)
    if data_start + position != file_size:
        raise HeaderError(
            f"{where} should be {data_start + position} bytes long by its header but is {file_size}: "
            "truncated or damaged; download it again"
        )
    return Header(tuple(tensors), metadata, data_start)


def build_header(
    tensors: Iterable[TensorInfo], metadata: Mapping[str, str], *, data_at: int | None = None
) -> bytes:
    """Length prefix and JSON for tensors that stand in the order of their bytes.

    Padded with spaces, so that the data begin at a multiple of 8, with `data_at`, if that is one too, at that place
    modulo BLOCK.
    """
    entries: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    for t in tensors:
        entries[t.name] = {
            "dtype": t.dtype,
            "shape": list(t.shape),
            "data_offsets": [t.data.start, t.data.stop],
        }
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode("utf-8")
    text += b" " * (-len(text) % 8)
    if data_at is not None and data_at % 8 == 0:
        text += b" " * ((data_at - PREFIX_BYTES - len(text)) % BLOCK)
    return struct.pack("<Q", len(text)) + text


def _tensor(name: str, entry: Any, bad: Any) -> TensorInfo:
    called = shown(name)
    if not isinstance(entry, dict) or not entry.keys() >= {"dtype", "shape", "data_offsets"}:
        bad(f"{called} needs dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPE_BITS:
        bad(f"{called} has the unknown dtype {shown(dtype)}")
    if not isinstance(shape, list) or not all(type(n) is int and 0 <= n < 2**64 for n in shape):
        bad(f"{called} has a shape that is not a list of sizes")
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(type(n) is int for n in offsets):
        bad(f"{called} has data_offsets that are not two integers")
    start, stop = offsets
    if not 0 <= start <= stop:
        bad(f"{called} has data_offsets that do not rise")
    bits = DTYPE_BITS[dtype]
    for n in shape:
        bits *= n
        if bits >= 2**67:
            bad(f"{called} has a shape larger than any file")
    if bits != 8 * (stop - start):
        bad(f"{called} has {stop - start} bytes where its shape and dtype need {-(-bits // 8)}")
    return TensorInfo(name, dtype, tuple(shape), ByteRange(start, stop))
