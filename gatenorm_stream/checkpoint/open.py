"""A directory becomes a `Checkpoint`: config, shards and where each tensor's bytes stand. Only headers are read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gatenorm_stream.checkpoint.header import (
    PREFIX_BYTES,
    Header,
    TensorInfo,
    header_range,
    parse_header,
)
from gatenorm_stream.checkpoint.local import LocalFile, LocalSource
from gatenorm_stream.checkpoint.ranges import ByteRange
from gatenorm_stream.errors import CheckpointError

CONFIG = "config.json"
SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
MAX_JSON_BYTES = 100_000_000
FOREIGN_WEIGHTS = (".bin", ".pth", ".pt", ".ckpt", ".gguf", ".h5", ".msgpack", ".onnx")


@dataclass(frozen=True)
class Shard:
    name: str
    file: LocalFile
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

    source: LocalSource
    config: Mapping[str, Any]
    shards: tuple[Shard, ...]
    tensors: Mapping[str, Tensor]
    index_metadata: Mapping[str, Any] | None

    @property
    def weight_bytes(self) -> int:
        return sum(len(t.info.data) for t in self.tensors.values())

    def __enter__(self) -> Checkpoint:
        return self

    def __exit__(self, *_: object) -> None:
        self.source.close()


def open_checkpoint(root: Path) -> Checkpoint:
    """Opens the safetensors checkpoint in `root`.

    Raises CheckpointError if there is none, or its index and shards contradict each other, and HeaderError if a
    shard breaks the format.
    """
    if not root.is_dir():
        raise CheckpointError(
            f"{root} is {'not a directory' if root.exists() else 'not there'}; give the local directory that holds "
            "config.json and the *.safetensors files"
        )
    source = LocalSource(root)
    try:
        names = source.names()
        if CONFIG not in names:
            raise CheckpointError(
                f"{root} has no {CONFIG}; give the directory that holds it beside the *.safetensors files"
            )
        config = _json_object(source, CONFIG)
        if SINGLE in names:
            weight_map, index_metadata, files = None, None, {SINGLE}
        elif INDEX in names:
            weight_map, index_metadata = _index(source)
            files = set(weight_map.values())
        else:
            raise CheckpointError(_no_weights(root, names))
        shards = tuple(_shard(source, name) for name in sorted(files))
        return Checkpoint(source, config, shards, _tensors(shards, weight_map), index_metadata)
    except BaseException:
        source.close()
        raise


def _shard(source: LocalSource, name: str) -> Shard:
    file = source.open(name)
    where = str(file.path)
    text = header_range(bytes(file.read(ByteRange(0, min(PREFIX_BYTES, file.size)))), file.size, where)
    header = parse_header(bytes(file.read(text)), file.size, where)
    file.release(text)
    return Shard(name, file, header)


def _tensors(shards: tuple[Shard, ...], weight_map: Mapping[str, str] | None) -> dict[str, Tensor]:
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


def _index(source: LocalSource) -> tuple[dict[str, str], dict[str, Any]]:
    index = _json_object(source, INDEX)
    where = source.root / INDEX
    weight_map, metadata = index.get("weight_map"), index.get("metadata", {})
    if not isinstance(weight_map, dict) or not weight_map or not isinstance(metadata, dict):
        raise CheckpointError(f"{where} has no weight_map from tensors to files; download it again")
    for file in weight_map.values():
        if not isinstance(file, str) or not _plain_name(file):
            raise CheckpointError(f"{where} names the file {file!r}: only plain *.safetensors names are read")
        if not (source.root / file).exists():
            raise CheckpointError(f"{where} names {file}, which is not there; download the missing shard")
    return weight_map, metadata


def _plain_name(name: str) -> bool:
    return name.endswith(".safetensors") and not name.startswith(".") and not any(c in name for c in "/\\\0:")


def _json_object(source: LocalSource, name: str) -> dict[str, Any]:
    file = source.open(name)
    if file.size > MAX_JSON_BYTES:
        raise CheckpointError(f"{file.path} is {file.size} bytes long: too large for a {name}")
    try:
        value = json.loads(bytes(file.read(ByteRange(0, file.size))))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{file.path} is not valid JSON ({error}); restore it") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{file.path} is not a JSON object; restore it")
    return value


def _no_weights(root: Path, names: tuple[str, ...]) -> str:
    if loose := [n for n in names if n.endswith(".safetensors")]:
        return f"{root} has {loose[0]} but neither {SINGLE} nor {INDEX}; restore the index file"
    if foreign := [n for n in names if n.endswith(FOREIGN_WEIGHTS)]:
        return (
            f"{root} has no safetensors weights, only {foreign[0]}; save the model as safetensors "
            "first (transformers: from_pretrained(...).save_pretrained(...))"
        )
    return f"{root} has no weights: neither {SINGLE} nor {INDEX} is there"
