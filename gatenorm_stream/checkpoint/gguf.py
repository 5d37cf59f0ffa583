"""One GGUF file, or those that it was split into, become a `Checkpoint`. Only headers are read."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from gatenorm_stream.checkpoint.foreign_bytes import in_words
from gatenorm_stream.checkpoint.gguf_header import MAX_HEADER_BYTES, GgufHeader, IncompleteError, parse_header
from gatenorm_stream.checkpoint.gguf_metadata import Value
from gatenorm_stream.checkpoint.json_text import MAX_JSON_BYTES
from gatenorm_stream.checkpoint.tensors import Checkpoint, Shard, counted, tensors_in_shards
from gatenorm_stream.errors import CheckpointError, HeaderError
from gatenorm_stream.names import SUFFIX
from gatenorm_stream.sources.ranges import ByteRange
from gatenorm_stream.sources.source import File, Source

SPLIT_PREFIX = "split."
"""Keys of the metadata that describe the splitting."""
FIRST_BYTES = 1 << 20
"""Of a file, read at first; more if its header is longer."""


@dataclass(frozen=True)
class GgufCheckpoint(Checkpoint):
    """`config` is the metadata of the first file: `Value`s by their keys, in their order."""

    @property
    def config_where(self) -> str:
        return self.source.title


def open_gguf(source: Source) -> GgufCheckpoint:
    """Opens the files `source.gguf`; closes `source` if they are no model.

    Raises CheckpointError if a file is missing or they contradict each other, HeaderError if one breaks the format.
    """
    try:
        with ThreadPoolExecutor(source.connections) as pool:
            opened = list(pool.map(lambda name: read_gguf_header(source.open(name)), source.gguf))
        parts = zip(source.gguf, opened, strict=True)
        shards = tuple(counted((Shard(n, source.open(n), found.header) for n, found in parts), source.title))
        _check_split(source, [found.metadata for found in opened])
        return GgufCheckpoint(source, opened[0].metadata, shards, tensors_in_shards(shards), None)
    except BaseException:
        source.cancel()
        source.close()
        raise


def read_gguf_header(file: File) -> GgufHeader:
    """Reads as much of the file as its header takes; how long that is, only its end tells. Raises HeaderError."""
    data, count = b"", min(FIRST_BYTES, file.size)
    while True:
        data += bytes(file.read(ByteRange(len(data), count)))
        if words := _no_gguf(data):
            raise HeaderError(f"{file.title} {words}")
        try:
            return parse_header(data, file.size, file.title)
        except IncompleteError:
            if count == file.size:
                raise HeaderError(
                    f"{file.title} ends within its header: truncated, or not a GGUF file; download it again"
                ) from None
            if count >= MAX_HEADER_BYTES:
                raise HeaderError(
                    f"{file.title} has a header of more than {MAX_HEADER_BYTES} bytes: not a GGUF file of a model"
                ) from None
            count = min(2 * count, file.size, MAX_HEADER_BYTES)


def _no_gguf(begin: bytes) -> str | None:
    """What a file is that begins so, where that is known and no GGUF file."""
    if begin[8:9] == b"{" and int.from_bytes(begin[:8], "little") <= MAX_JSON_BYTES:
        return "is a safetensors file, whatever its name; give the directory that holds it and its config.json"
    return in_words(begin)


def _check_split(source: Source, files: list[Mapping[str, Value]]) -> None:
    for number, (name, metadata) in enumerate(zip(source.gguf, files, strict=True)):
        part, count = (
            value.read() if (value := metadata.get(f"{SPLIT_PREFIX}{key}")) else default
            for key, default in (("no", number), ("count", len(files)))
        )
        if part != number or count not in (0, len(files)):
            raise CheckpointError(
                f"{name} says that it is part {part} (from 0 on) of {count}; give the parts their own names back: "
                f"NAME-00001-of-0000N{SUFFIX} and so on"
            )
