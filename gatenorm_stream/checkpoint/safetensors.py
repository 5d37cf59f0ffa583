"""A directory becomes a `Checkpoint`: config, shards and where each tensor's bytes stand. Only headers are read."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from gatenorm_stream.checkpoint.index import index_remarks
from gatenorm_stream.checkpoint.json_text import MAX_JSON_BYTES, parse_json
from gatenorm_stream.checkpoint.safetensors_header import PREFIX_BYTES, header_range, parse_header
from gatenorm_stream.checkpoint.tensors import Checkpoint, Header, Shard, tensors_in_shards
from gatenorm_stream.errors import CheckpointError
from gatenorm_stream.names import ADAPTER, CONFIG, INDEX, SINGLE
from gatenorm_stream.sources.ranges import ByteRange
from gatenorm_stream.sources.source import File, Source

ENTRY_BYTES = 75
"""Of a header's entry beside the tensor's name, about."""
GUESSED_HEADER_BYTES = 1 << 14
SHOWN_NAMES = 5
PLAIN_NAME = re.compile(r"[^./\\\0:][^/\\\0:]*\.safetensors")
FOREIGN_WEIGHTS = (".bin", ".pth", ".pt", ".ckpt", ".gguf", ".h5", ".msgpack", ".onnx")


def open_checkpoint(source: Source) -> Checkpoint:
    """Opens the safetensors checkpoint that `source` holds; closes `source` if there is none.

    Raises CheckpointError if there is none, or its index and shards contradict each other, and HeaderError if a
    shard breaks the format.
    """
    try:
        names = source.names()
        if (CONFIG not in names or not {SINGLE, INDEX} & set(names)) and (hint := _gguf_hint(source, names)):
            raise CheckpointError(hint)
        if CONFIG not in names and ADAPTER in names:
            raise CheckpointError(
                f"{source.title} is an adapter, not a model; merge it into its base model first "
                "(peft: merge_and_unload)"
            )
        if CONFIG not in names:
            raise CheckpointError(
                f"{source.title} has no {CONFIG}; give the directory or repository that holds it beside the "
                "*.safetensors files"
            )
        config = json_object(source, CONFIG)
        if SINGLE in names:
            weight_map, index_metadata = None, None
            tensors_in: dict[str, list[str]] = {SINGLE: []}
        elif INDEX in names:
            weight_map, index_metadata = _index(source, names)
            tensors_in = {file: [] for file in sorted(set(weight_map.values()))}
            for tensor, file in weight_map.items():
                tensors_in[file].append(tensor)
        else:
            raise CheckpointError(_no_weights(source.title, names))
        with ThreadPoolExecutor(source.connections) as pool:
            shards = tuple(pool.map(lambda item: _shard(source, *item), tensors_in.items()))
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
    where = header_range(bytes(first[:PREFIX_BYTES]), file.size, file.where)
    text = bytes(first[where.start : where.stop])
    if len(text) < len(where):
        text += bytes(file.read(ByteRange(len(first), where.stop)))
    return parse_header(text, file.size, file.where)


def _shard(source: Source, name: str, tensors: list[str]) -> Shard:
    """How long its header is, is guessed from the names of the tensors in it."""
    file = source.open(name)
    guess = sum(len(tensor.encode("utf-8")) + ENTRY_BYTES for tensor in tensors) or GUESSED_HEADER_BYTES
    return Shard(name, file, read_shard_header(file, guess))


def _index(source: Source, names: tuple[str, ...]) -> tuple[dict[str, str], dict[str, Any]]:
    index = json_object(source, INDEX)
    where = source.open(INDEX).where
    weight_map, metadata = index.get("weight_map"), index.get("metadata")
    metadata = metadata if isinstance(metadata, dict) else {}
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{where} has no weight_map from tensors to files; download it again")
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
        raise CheckpointError(f"{file.where} is {file.size} bytes long: too large for a {name}")
    try:
        value = parse_json(bytes(file.read(ByteRange(0, file.size))))
    except ValueError as error:
        raise CheckpointError(f"{file.where} is not valid JSON ({error}); restore it") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{file.where} is not a JSON object; restore it")
    return value


def _gguf_hint(source: Source, names: tuple[str, ...]) -> str | None:
    """What to do if there is no safetensors checkpoint, but GGUF files."""
    found = [n for n in names if n.endswith(".gguf")]
    if not found:
        return None
    shown = ", ".join(f"{source.title}{'/' if source.directory else ':'}{name}" for name in found[:SHOWN_NAMES])
    more = f" and {len(found) - SHOWN_NAMES} more" if len(found) > SHOWN_NAMES else ""
    return f"{source.title} has no safetensors checkpoint; give one of its GGUF files: {shown}{more}"


def _no_weights(title: str, names: tuple[str, ...]) -> str:
    if loose := [n for n in names if n.endswith(".safetensors")]:
        return f"{title} has {loose[0]} but neither {SINGLE} nor {INDEX}; restore the index file"
    if foreign := [n for n in names if n.endswith(FOREIGN_WEIGHTS)]:
        return (
            f"{title} has no safetensors weights, only {foreign[0]}; save the model as safetensors "
            "first (transformers: from_pretrained(...).save_pretrained(...))"
        )
    return f"{title} has no weights: neither {SINGLE} nor {INDEX} is there"
