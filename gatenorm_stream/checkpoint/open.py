"""A directory becomes a `Checkpoint`: config, shards and where each tensor's bytes stand. Only headers are read."""

from __future__ import annotations

import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Self

from gatenorm_stream.checkpoint.header import (
    PREFIX_BYTES,
    Header,
    TensorInfo,
    header_range,
    parse_header,
)
from gatenorm_stream.checkpoint.json_text import MAX_JSON_BYTES, parse_json
from gatenorm_stream.checkpoint.ranges import ByteRange
from gatenorm_stream.checkpoint.source import File, Source
from gatenorm_stream.errors import CheckpointError

CONFIG = "config.json"
ADAPTER = "adapter_config.json"
SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
ENTRY_BYTES = 75
"""Of a header's entry beside the tensor's name, about."""
GUESSED_HEADER_BYTES = 1 << 14
SHOWN_NAMES = 5
PLAIN_NAME = re.compile(r"[^./\\\0:][^/\\\0:]*\.safetensors")
FOREIGN_WEIGHTS = (".bin", ".pth", ".pt", ".ckpt", ".gguf", ".h5", ".msgpack", ".onnx")


@dataclass(frozen=True)
class Shard:
    name: str
    file: File
    header: Header


@dataclass(frozen=True)
class Tensor:
    """A tensor of the checkpoint; `range` is absolute within `shard`'s file."""

    info: TensorInfo
    shard: Shard

    @property
    def name(self) -> str:
        return self.info.name

    @property
    def dtype(self) -> str:
        return self.info.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        return self.info.shape

    @property
    def range(self) -> ByteRange:
        start = self.shard.header.data_start
        return ByteRange(start + self.info.data.start, start + self.info.data.stop)


@dataclass(frozen=True)
class Checkpoint:
    """`index_metadata` is None for a checkpoint without an index."""

    source: Source
    config: Mapping[str, Any]
    shards: tuple[Shard, ...]
    tensors: Mapping[str, Tensor]
    index_metadata: Mapping[str, Any] | None

    @property
    def config_where(self) -> str:
        """The config's file, as messages name it."""
        return f"{self.source.title}/{CONFIG}"

    @property
    def weight_bytes(self) -> int:
        return sum(len(t.info.data) for t in self.tensors.values())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.source.close()


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
        return Checkpoint(source, config, shards, tensors_in_shards(shards, weight_map), index_metadata)
    except BaseException:
        source.cancel()
        source.close()
        raise


def _shard(source: Source, name: str, tensors: list[str]) -> Shard:
    """Reads the header, mostly at one go: its length is guessed from the names of the tensors in it."""
    file = source.open(name)
    guess = sum(len(tensor.encode("utf-8")) + ENTRY_BYTES for tensor in tensors) or GUESSED_HEADER_BYTES
    first = file.read(ByteRange(0, min(PREFIX_BYTES + guess, file.size)))
    where = header_range(bytes(first[:PREFIX_BYTES]), file.size, file.where)
    text = bytes(first[where.start : where.stop])
    if len(text) < len(where):
        text += bytes(file.read(ByteRange(len(first), where.stop)))
    header = parse_header(text, file.size, file.where)
    return Shard(name, file, header)


def tensors_in_shards(shards: tuple[Shard, ...], weight_map: Mapping[str, str] | None = None) -> dict[str, Tensor]:
    """By their names. Raises CheckpointError if one stands twice, or `weight_map` says otherwise."""
    tensors: dict[str, Tensor] = {}
    for shard in shards:
        for info in shard.header.tensors:
            if info.name in tensors:
                raise CheckpointError(
                    f"{info.name} stands in both {tensors[info.name].shard.name} and {shard.name}; "
                    "the checkpoint is damaged, download it again"
                )
            if weight_map is not None and weight_map.get(info.name) != shard.name:
                raise CheckpointError(
                    f"{shard.name} holds {info.name}, which {INDEX} puts in "
                    f"{weight_map.get(info.name, 'no file')}; the checkpoint is damaged, download it again"
                )
            tensors[info.name] = Tensor(info, shard)
    for name in weight_map or ():
        if name not in tensors:
            raise CheckpointError(
                f"{INDEX} puts {name} in {(weight_map or {})[name]}, which does not hold it; "
                "the checkpoint is damaged, download it again"
            )
    return tensors


def _index(source: Source, names: tuple[str, ...]) -> tuple[dict[str, str], dict[str, Any]]:
    index = json_object(source, INDEX)
    where = source.open(INDEX).where
    weight_map, metadata = index.get("weight_map"), index.get("metadata", {})
    if not isinstance(weight_map, dict) or not weight_map or not isinstance(metadata, dict):
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
