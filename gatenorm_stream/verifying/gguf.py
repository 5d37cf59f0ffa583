"""Reads a pruned GGUF file independently and compares it with its record, and with its source."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from gatenorm_stream.checkpoint.gguf import GgufCheckpoint, open_gguf
from gatenorm_stream.checkpoint.tensors import Tensor
from gatenorm_stream.errors import CheckpointError, VerificationError
from gatenorm_stream.families.gguf import ARCHITECTURE, LAYERS, read_gguf_model
from gatenorm_stream.formats.choice import GGUF_FORMATS, formats_for
from gatenorm_stream.formats.deci import DECI
from gatenorm_stream.planning.gguf_layout import MODEL, lay_out_gguf
from gatenorm_stream.planning.plan import Plan, check_plan_fits
from gatenorm_stream.sources.local import LocalSource
from gatenorm_stream.sources.ranges import ByteRange
from gatenorm_stream.sources.source import Source
from gatenorm_stream.verifying.verified import Verified
from gatenorm_stream.work import Progress
from gatenorm_stream.writing.record import FileDigest, MarkedDigest, read_record

CHUNK = 8 << 20


def verify_gguf(out: Path, against: Source | None = None, *, progress: Progress | None = None) -> Verified:
    """Checks every byte of `out` against the digests in the record beside it, its heads and tensors against its
    plan, and with `against` every kept tensor against the source's bytes.

    Raises VerificationError with all that is wrong.
    """
    plan, files = read_record(out)
    if not out.is_file():
        raise VerificationError(str(out), ["it is not there, only its record is"])
    if files.keys() != {MODEL}:
        raise VerificationError(str(out), ["the record beside it is not that of a GGUF file"])
    try:
        checkpoint = open_gguf(LocalSource(out.parent, gguf=(out.name,)))
    except CheckpointError as error:
        raise VerificationError(str(out), [f"its header was changed: {error}"]) from error
    with checkpoint:
        problems = list(_changed(checkpoint, files[MODEL], progress))
        if not problems:
            problems += _contradictions(checkpoint, plan)
        if not problems and against:
            problems += _differences(checkpoint, plan, against, progress)
    if problems:
        raise VerificationError(str(out), problems)
    return Verified(plan, 1, len(checkpoint.tensors), files[MODEL].size, against.title if against else None)


def _changed(checkpoint: GgufCheckpoint, expected: FileDigest, progress: Progress | None) -> Iterator[str]:
    (shard,) = checkpoint.shards
    if shard.file.size != expected.size:
        yield f"it is {shard.file.size} bytes long instead of {expected.size}"
        return
    parts = [("its header", shard.header.data_start)]
    parts += [(t.name, shard.header.data_start + t.data.stop) for t in shard.header.tensors]
    digest = MarkedDigest([end for _, end in parts])
    for part in ByteRange(0, expected.size).chunks(CHUNK):
        digest.update(shard.file.read(part))
        if progress:
            progress("verifying", part.stop, expected.size, shard.name)
    if digest.result().blake3 != expected.blake3:
        differing = (
            what
            for (what, _), mine, theirs in zip(parts, digest.marks, expected.marks, strict=False)
            if mine != theirs
        )
        yield f"it was changed: its BLAKE3 digest differs, first in {next(differing, 'its last bytes')}"


def _contradictions(checkpoint: GgufCheckpoint, plan: Plan) -> Iterator[str]:
    """What stands in it against the plan; anyone can write a file and record its digest.

    The `gguf` package's own reader would be another pair of eyes, but takes 500 MB for a large vocabulary.
    """
    metadata, names = checkpoint.config, checkpoint.tensors
    said: list[Any] = [
        metadata[key].read() if key in metadata else None for key in (ARCHITECTURE, f"{DECI}.attention.head_count")
    ]
    architecture, heads = said
    removes = GGUF_FORMATS[plan.format].removes
    if removes and (architecture != DECI or not isinstance(heads, list)):
        yield f"its architecture is {architecture}, not {DECI} with a number of heads for each layer"
        return
    for layer in (s.layer for s in plan.scores):
        gone = removes and layer in plan.dropped
        if any(name.startswith(f"{LAYERS}.{layer}.attn_") for name in names) == gone:
            yield f"layer {layer} has {'' if gone else 'no '}attention tensors, against the plan"
        if removes and heads[layer : layer + 1] != [0] and gone:
            yield f"layer {layer} has heads, against the plan"


def _differences(
    checkpoint: GgufCheckpoint, plan: Plan, against: Source, progress: Progress | None
) -> Iterator[str]:
    if not against.gguf:
        against.close()
        yield f"{against.title} is no GGUF file"
        return
    with open_gguf(against) as source:
        model = read_gguf_model(source)
        check_plan_fits(plan, model)
        edit = formats_for(source)[plan.format].edit(model, plan.dropped, plan.constants)
        (shard,) = checkpoint.shards
        (planned,) = lay_out_gguf(plan, model).shards
        if shard.file.read(ByteRange(0, shard.header.data_start)) != planned.header:
            yield "its header is not what the plan makes of the source"
            return
        constants = {new.name: new.values for new in edit.add}
        total, done = checkpoint.weight_bytes, 0
        for tensor in checkpoint.tensors.values():
            if tensor.name in constants:
                if bytes(shard.file.read(tensor.range)) != constants[tensor.name]:
                    yield f"{tensor.name} is not the constant that the plan has"
                continue
            rows = edit.interleave.get(tensor.name)
            if not _same(tensor, source.tensors[tensor.name], tensor.name in edit.zero, rows):
                yield f"{tensor.name} {'is not zero' if tensor.name in edit.zero else 'differs from the source'}"
            done += len(tensor.range)
            if progress:
                progress("comparing", done, total, shard.name)


def _same(kept: Tensor, original: Tensor, zero: bool, head_rows: int | None) -> bool:
    """Compared in portions that hold whole heads where their rows were interleaved."""
    step = CHUNK
    if head_rows:
        row_bytes = len(kept.range) // kept.shape[0]
        step = max(1, CHUNK // (head_rows * row_bytes)) * head_rows * row_bytes
    for mine, theirs in zip(kept.range.chunks(step), original.range.chunks(step), strict=True):
        found = np.frombuffer(kept.shard.file.read(mine), np.uint8)
        if zero:
            if found.any():
                return False
            continue
        wanted = np.frombuffer(original.shard.file.read(theirs), np.uint8)
        if head_rows:
            wanted = wanted.reshape(-1, 2, head_rows // 2, row_bytes).swapaxes(1, 2).reshape(-1)
        if not np.array_equal(found, wanted):
            return False
    return True
