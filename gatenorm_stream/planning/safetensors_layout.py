"""A plan for a safetensors checkpoint becomes a layout. Pure: nothing is read but headers and
configs, nothing written."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from typing import Any

from gatenorm_stream.checkpoint.foreign_code import without_foreign_code
from gatenorm_stream.checkpoint.safetensors_header import BLOCK, DTYPE_BITS, build_header
from gatenorm_stream.checkpoint.tensors import Checkpoint, Shard, Tensor, TensorInfo, with_offsets
from gatenorm_stream.errors import FormatError
from gatenorm_stream.families.model import Model
from gatenorm_stream.formats.choice import FORMATS
from gatenorm_stream.formats.edit import Added, Edit
from gatenorm_stream.formats.tokenizer import foreign_tokenizer
from gatenorm_stream.names import CARD, CONFIG, INDEX, PICTURE, RECORD, SINGLE, check_names
from gatenorm_stream.planning.layout import Copied, Layout, Piece, ShardLayout, Zeros
from gatenorm_stream.planning.needs import read_needs
from gatenorm_stream.planning.plan import Plan
from gatenorm_stream.planning.travelling import missing, travelling
from gatenorm_stream.planning.trust import as_text, judge
from gatenorm_stream.sources.ranges import ByteRange, coalesce
from gatenorm_stream.sources.source import Source


def lay_out_checkpoint(plan: Plan, model: Model) -> Layout:
    """Lays out what `plan` makes of `model`.

    Raises FormatError if nothing would be left, CheckpointError if a file can't travel under its name.
    """
    checkpoint = model.checkpoint
    edit = FORMATS[plan.format].edit(model, plan.dropped, plan.constants)
    kept = [(shard, tuple(_kept(shard, edit))) for shard in checkpoint.shards]
    kept = [(shard, tensors) for shard, tensors in kept if tensors]
    if not kept:
        raise FormatError(f"nothing of {checkpoint.source.title} would be left")
    shards = tuple(
        _shard_layout(_shard_name(number, len(kept)), shard, tensors, edit)
        for number, (shard, tensors) in enumerate(kept, start=1)
    )
    config = without_foreign_code(edit.config)
    texts = {CONFIG: as_text(config.value), **edit.files}
    if len(shards) > 1:
        texts[INDEX] = _index(checkpoint, shards)
    written = {CARD, PICTURE, RECORD, *texts, *(s.name for s in shards)}
    source, needs = checkpoint.source, read_needs(checkpoint)
    names = source.names()
    weights = {shard.name for shard in checkpoint.shards} | {INDEX}
    others = travelling(names, needs, plan.also, weights | written)
    check_names([*written, *others.names], source.title)
    judged = judge(source, others.names)
    copied = {name: _whole(source, name) for name in others.names if name not in judged.texts}
    taken_out = (
        *(f"{CONFIG}: {what}" for what in without_foreign_code(checkpoint.config).taken_out),
        *judged.taken_out,
    )
    taken_out += tuple(f"{name}: {what}" for name, what in foreign_tokenizer(model) if name in edit.files)
    left_out = {**others.left_out, **source.apart()}
    removed = tuple(t for name, t in checkpoint.tensors.items() if name in edit.remove)
    lacking = missing(names, needs, checkpoint.config)
    if lacking and source.directory and source.revision:
        lacking += (f"the Hub cache may hold half of it; `hf download {source.title}` fetches the rest",)
    return Layout(
        shards,
        {**texts, **judged.texts},
        copied,
        left_out,
        removed,
        missing=lacking,
        taken_out=taken_out,
        code=judged.code,
    )


def _kept(shard: Shard, edit: Edit) -> Iterator[TensorInfo]:
    """The tensors that stay, and the new ones, whose place is not yet known."""
    added: dict[str, list[Added]] = {}
    for new in edit.add:
        added.setdefault(new.after, []).append(new)
    for t in shard.header.tensors:
        if t.name not in edit.remove:
            yield t
        for new in added.get(t.name, ()):
            dtype = new.dtype or t.dtype
            size = math.prod(new.shape) * DTYPE_BITS[dtype] // 8
            yield TensorInfo(new.name, dtype, new.shape, ByteRange(0, size))


def _shard_name(number: int, count: int) -> str:
    return SINGLE if count == 1 else f"model-{number:05d}-of-{count:05d}.safetensors"


def _shard_layout(name: str, shard: Shard, tensors: tuple[TensorInfo, ...], edit: Edit) -> ShardLayout:
    new = _new(edit)
    if tensors == shard.header.tensors and not any(t.name in new for t in tensors):
        return ShardLayout(name, b"", (Copied(shard.file, ByteRange(0, shard.file.size)),), tensors)
    placed = with_offsets(tensors)
    header = build_header(placed, shard.header.metadata, data_at=_shared_offset(shard, tensors, placed, edit))
    return ShardLayout(name, header, tuple(_pieces(shard, tensors, edit)), placed)


def _new(edit: Edit) -> dict[str, bytes | None]:
    """The tensors whose bytes are not the source's, with those bytes; None for zeros."""
    return {**dict.fromkeys(edit.zero), **{new.name: new.values for new in edit.add}}


def _shared_offset(
    shard: Shard, tensors: tuple[TensorInfo, ...], placed: tuple[TensorInfo, ...], edit: Edit
) -> int | None:
    """Where in a block the data have to begin for most of the bytes that stay to stand as in the source."""
    new, offsets = _new(edit), Counter[int]()
    for before, after in zip(tensors, placed, strict=True):
        if before.name not in new:
            offsets[(Tensor(before, shard).range.start - after.data.start) % BLOCK] += len(after.data)
    return max(offsets, key=offsets.__getitem__, default=None)


def _pieces(shard: Shard, tensors: tuple[TensorInfo, ...], edit: Edit) -> Iterator[Piece]:
    """Runs of kept bytes as one piece each."""
    run: list[ByteRange] = []
    new = _new(edit)

    def flush() -> Iterator[Piece]:
        yield from (Copied(shard.file, r) for r in coalesce(run))
        run.clear()

    for t in tensors:
        if t.name in new:
            yield from flush()
            yield new[t.name] or Zeros(len(t.data))
        else:
            run.append(Tensor(t, shard).range)
    yield from flush()


def _index(checkpoint: Checkpoint, shards: tuple[ShardLayout, ...]) -> str:
    tensors = [(t, shard.name) for shard in shards for t in shard.tensors]
    metadata: dict[str, Any] = dict(checkpoint.index_metadata or {})
    metadata["total_size"] = sum(len(t.data) for t, _ in tensors)
    if "total_parameters" in metadata:
        metadata["total_parameters"] = sum(t.elements for t, _ in tensors)
    weight_map = {t.name: name for t, name in sorted(tensors, key=lambda pair: pair[0].name)}
    return as_text({"metadata": metadata, "weight_map": weight_map})


def _whole(source: Source, name: str) -> Copied:
    file = source.open(name)
    return Copied(file, ByteRange(0, file.size))
