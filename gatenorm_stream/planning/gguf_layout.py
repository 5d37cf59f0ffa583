"""A plan for a GGUF model becomes a layout: one file, whatever the source was split into. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from gatenorm_stream.checkpoint.gguf import SPLIT_PREFIX
from gatenorm_stream.checkpoint.gguf_header import alignment, build_header, padding
from gatenorm_stream.checkpoint.tensors import Tensor, place
from gatenorm_stream.families.model import Model
from gatenorm_stream.formats.choice import formats_for
from gatenorm_stream.formats.edit import Edit
from gatenorm_stream.planning.layout import Copied, Interleaved, Layout, Piece, ShardLayout, Zeros
from gatenorm_stream.planning.plan import Plan

MODEL = "model.gguf"
"""What the file is called until it is complete, and in its record."""


def lay_out_gguf(plan: Plan, model: Model) -> Layout:
    """Lays out what `plan` makes of `model`, whose checkpoint is a GgufCheckpoint."""
    checkpoint = model.checkpoint
    edit = formats_for(checkpoint)[plan.format].edit(model, plan.dropped)
    metadata = {key: value for key, value in edit.config.items() if not key.startswith(SPLIT_PREFIX)}
    kept = [t for t in checkpoint.tensors.values() if t.name not in edit.remove]
    align = alignment(metadata)
    tensors = place([t.info for t in kept], align)
    pieces = tuple(piece for t in kept for piece in _pieces(t, edit, align))
    shard = ShardLayout(MODEL, build_header(metadata, tensors), pieces, tensors)
    removed = tuple(t for name, t in checkpoint.tensors.items() if name in edit.remove)
    return Layout((shard,), {}, {}, (), removed, single_file=True)


def _pieces(tensor: Tensor, edit: Edit, align: int) -> Iterator[Piece]:
    """The tensor's bytes, and zeros up to where the next one may begin."""
    size = len(tensor.range)
    if tensor.name in edit.zero:
        yield Zeros(size)
    elif rows := edit.interleave.get(tensor.name):
        step = size // tensor.shape[0]
        for head in tensor.range.chunks(rows * step):
            yield Interleaved(tensor.shard.file, head, step)
    else:
        yield Copied(tensor.shard.file, tensor.range)
    if rest := padding(size, align):
        yield Zeros(rest)
