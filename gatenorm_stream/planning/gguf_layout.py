"""A plan for a GGUF model becomes a layout: one file, whatever the source was split into. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator

from gatenorm_stream.checkpoint.gguf import SPLIT_PREFIX
from gatenorm_stream.checkpoint.gguf_header import alignment, build_header, padding
from gatenorm_stream.checkpoint.gguf_types import NUMBERS, TYPES, is_known
from gatenorm_stream.checkpoint.tensors import Checkpoint, Tensor, TensorInfo, with_offsets
from gatenorm_stream.errors import FormatError
from gatenorm_stream.families.model import Model
from gatenorm_stream.formats.choice import formats_for
from gatenorm_stream.formats.edit import Edit
from gatenorm_stream.planning.layout import Copied, Interleaved, Layout, Piece, ShardLayout, Zeros
from gatenorm_stream.planning.plan import Plan
from gatenorm_stream.sources.ranges import ByteRange
from gatenorm_stream.sources.source import Kind

MODEL = "model.gguf"
"""What the file is called until it is complete, and in its record."""


def lay_out_gguf(plan: Plan, model: Model) -> Layout:
    """Lays out what `plan` makes of `model`, whose checkpoint is a GgufCheckpoint.

    Raises FormatError if a file is to travel along: there is one file, which holds all.
    """
    checkpoint = model.checkpoint
    if plan.also:
        raise FormatError(f"--also {plan.also[0]}: one GGUF file comes out, and nothing beside it; leave that out")
    edit = formats_for(checkpoint)[plan.format].edit(model, plan.dropped, plan.constants)
    metadata = {key: value for key, value in edit.config.items() if not key.startswith(SPLIT_PREFIX)}
    align = alignment(metadata)
    parts = [part for t in checkpoint.tensors.values() for part in _parts(t, edit)]
    tensors = with_offsets([info for info, _ in parts], align)
    last = parts[-1][0].name
    pieces = tuple(
        piece
        for info, content in parts
        for piece in (*content, *(() if info.name == last and not is_known(info.dtype) else _padding(info, align)))
    )
    shard = ShardLayout(MODEL, build_header(metadata, tensors), pieces, tensors)
    removed = tuple(t for name, t in checkpoint.tensors.items() if name in edit.remove)
    return Layout((shard,), {}, {}, dict.fromkeys(_left_out(checkpoint), ""), removed, Kind.GGUF)


def _left_out(checkpoint: Checkpoint) -> Iterator[str]:
    """What stands behind the last tensor of a file, beyond what aligns it."""
    for shard in checkpoint.shards:
        tensors = [Tensor(info, shard) for info in shard.header.tensors]
        end = max((t.range.stop for t in tensors), default=shard.header.data_start)
        rest = shard.file.size - end - padding(end - shard.header.data_start, alignment(checkpoint.config))
        if rest > 0:
            yield f"the {rest} bytes behind the last tensor of {shard.name}"


def _parts(tensor: Tensor, edit: Edit) -> Iterator[tuple[TensorInfo, tuple[Piece, ...]]]:
    """What of `tensor` stays and what is new behind it, whose place is not yet known: each with its bytes."""
    if tensor.name not in edit.remove:
        yield tensor.info, tuple(_content(tensor, edit))
    for new in edit.add:
        if new.after == tensor.name:
            dtype = new.dtype or tensor.dtype
            size = math.prod(new.shape) * TYPES[NUMBERS[dtype]].bytes
            yield TensorInfo(new.name, dtype, new.shape, ByteRange(0, size)), (new.values or Zeros(size),)


def _content(tensor: Tensor, edit: Edit) -> Iterator[Piece]:
    size = len(tensor.range)
    if tensor.name in edit.zero:
        yield Zeros(size)
    elif rows := edit.interleave.get(tensor.name):
        step = size // tensor.shape[0]
        for head in tensor.range.chunks(rows * step):
            yield Interleaved(tensor.shard.file, head, step)
    else:
        yield Copied(tensor.shard.file, tensor.range)


def _padding(tensor: TensorInfo, align: int) -> Iterator[Piece]:
    """Zeros up to where the next tensor may begin."""
    if rest := padding(len(tensor.data), align):
        yield Zeros(rest)
