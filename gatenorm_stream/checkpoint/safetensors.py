"""A directory becomes a `Checkpoint`: config, shards and where each tensor's bytes stand. Only headers are read."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from gatenorm_stream.checkpoint.foreign_bytes import LFS, MOST_POINTER_BYTES, in_words
from gatenorm_stream.checkpoint.gguf_header import MAGIC
from gatenorm_stream.checkpoint.index import index_remarks
from gatenorm_stream.checkpoint.json_text import MAX_JSON_BYTES, parse_json
from gatenorm_stream.checkpoint.missing_weights import no_model
from gatenorm_stream.checkpoint.safetensors_header import PREFIX_BYTES, header_range, parse_header
from gatenorm_stream.checkpoint.tensors import Checkpoint, Header, Shard, check_number, counted, tensors_in_shards
from gatenorm_stream.errors import CheckpointError, HeaderError
from gatenorm_stream.names import CONFIG, INDEX, SINGLE
from gatenorm_stream.printable import listed
from gatenorm_stream.sources.ranges import ByteRange
from gatenorm_stream.sources.source import File, Source, read_whole

ENTRY_BYTES = 75
"""Of a header's entry beside the tensor's name, about."""
GUESSED_HEADER_BYTES = 1 << 14
BEGIN_BYTES = 64
"""Of a file, by which it is told what it is if it is not what its name says."""
SHOWN_NAMES = 5
PLAIN_NAME = re.compile(r"[^./\\\0:][^/\\\0:]*\.safetensors")
TEXTS = (".json", ".model", ".txt", ".tiktoken", ".jinja")
"""How files end that a model needs beside its weights."""


def open_checkpoint(source: Source) -> Checkpoint:
    """Opens the safetensors checkpoint that `source` holds; closes `source` if there is none.

    Raises CheckpointError if there is none, or its index and shards contradict each other, and HeaderError if a
    shard breaks the format.
    """
    try:
        names = source.names()
        if (CONFIG not in names or not {SINGLE, INDEX} & set(names)) and (hint := _gguf_hint(source, names)):
            raise CheckpointError(hint)
        if words := no_model(source.title, names):
            raise CheckpointError(_left_apart(source) or words)
        config = json_object(source, CONFIG)
        _check_pointers(source, names)
        if SINGLE in names:
            weight_map, index_metadata = None, None
            tensors_in: dict[str, list[str]] = {SINGLE: []}
        else:
            weight_map, index_metadata = _index(source, names)
            tensors_in = {file: [] for file in sorted(set(weight_map.values()))}
            for tensor, file in weight_map.items():
                tensors_in[file].append(tensor)
        with ThreadPoolExecutor(source.connections) as pool:
            found = pool.map(lambda item: _shard(source, *item), tensors_in.items())
            shards = tuple(counted(found, source.title))
        tensors = tensors_in_shards(shards)
        remarks = index_remarks(weight_map, tensors, config) if weight_map is not None else ()
        return Checkpoint(source, config, shards, tensors, index_metadata, remarks)
    except BaseException:
        source.cancel()
        source.close()
        raise


def read_shard_header(file: File, guess: int = GUESSED_HEADER_BYTES) -> Header:
    """Reads the header, at one go if its JSON takes no more than `guess` bytes. Raises HeaderError."""
    first = file.read(ByteRange(0, min(PREFIX_BYTES + guess, file.size)))
    if words := _no_safetensors(bytes(first[:BEGIN_BYTES])):
        raise HeaderError(f"{file.title} {words}")
    where = header_range(bytes(first[:PREFIX_BYTES]), file.size, file.title)
    text = bytes(first[where.start : where.stop])
    if len(text) < len(where):
        text += bytes(file.read(ByteRange(len(first), where.stop)))
    return parse_header(text, file.size, file.title)


def _no_safetensors(begin: bytes) -> str | None:
    """What a file is that begins so, where that is known and no safetensors file."""
    if begin.startswith(MAGIC):
        return "is a GGUF file, not a safetensors file; give it by itself as the model"
    return None if begin[PREFIX_BYTES : PREFIX_BYTES + 1] == b"{" else in_words(begin)


def _shard(source: Source, name: str, tensors: list[str]) -> Shard:
    """How long its header is, is guessed from the names of the tensors in it."""
    file = source.open(name)
    guess = sum(len(tensor.encode("utf-8")) + ENTRY_BYTES for tensor in tensors) or GUESSED_HEADER_BYTES
    return Shard(name, file, read_shard_header(file, guess))


def _index(source: Source, names: tuple[str, ...]) -> tuple[dict[str, str], dict[str, Any]]:
    index = json_object(source, INDEX)
    where = source.open(INDEX).title
    weight_map, metadata = index.get("weight_map"), index.get("metadata")
    metadata = metadata if isinstance(metadata, dict) else {}
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{where} has no weight_map from tensors to files; download it again")
    check_number(len(weight_map), source.title)
    for file in weight_map.values():
        if not isinstance(file, str) or not PLAIN_NAME.fullmatch(file):
            raise CheckpointError(f"{where} names the file {file!r}: only plain *.safetensors names are read")
    if missing := set(weight_map.values()) - set(names):
        file = min(missing)
        source.open(file)  # a name that is not listed may still be there, as a link or a pipe: say what it is
        raise CheckpointError(f"{where} names {file}, which is not there; download the missing shard")
    return weight_map, metadata


def json_object(source: Source, name: str) -> dict[str, Any]:
    """The object in a JSON file of the source. Raises CheckpointError if it is missing, too large or no object."""
    file = source.open(name)
    if file.size > MAX_JSON_BYTES:
        raise CheckpointError(f"{file.title} is {file.size} bytes long: too large for a {name}")
    text = read_whole(file)
    if words := in_words(text[:BEGIN_BYTES]):
        raise CheckpointError(f"{file.title} {words}")
    try:
        value = parse_json(text)
    except ValueError as error:
        raise CheckpointError(f"{file.title} is not valid JSON ({error}); restore it") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{file.title} is not a JSON object; restore it")
    return value


def _left_apart(source: Source) -> str:
    """What is said where a file that makes a model is there, and is none that is read."""
    apart = source.apart()
    name = next((n for n in (CONFIG, INDEX, SINGLE) if n in apart), None)
    return f"{source.title}: {name} is {apart[name]}; put the file itself there" if name else ""


def _gguf_hint(source: Source, names: tuple[str, ...]) -> str | None:
    """What to do if there is no safetensors checkpoint, but GGUF files."""
    found = [n for n in names if n.lower().endswith(".gguf")]
    if not found:
        return None
    shown = listed([f"{source.title}{'/' if source.directory else ':'}{name}" for name in found], SHOWN_NAMES)
    return f"{source.title} has no safetensors checkpoint; give one of its GGUF files: {shown}"


def _check_pointers(source: Source, names: tuple[str, ...]) -> None:
    """A clone without git-lfs may hold weights, and a pointer for the tokenizer, which would travel as it is."""
    if source.remote:
        return
    for name in names:
        if name.endswith(TEXTS) and (file := source.open(name)).size <= MOST_POINTER_BYTES:
            begin = bytes(file.read(ByteRange(0, min(file.size, BEGIN_BYTES))))
            if begin.startswith(LFS):
                raise CheckpointError(f"{file.title} {in_words(begin)}")
