"""A model's scores: reads two projections a layer by their byte ranges, shares the heads out over threads.

Each thread holds a few head-sized arrays and uses them again, so the memory needed does not grow with the model.
BLAS should run one thread for each of ours (the command sets OPENBLAS_NUM_THREADS=1 and its like before numpy is
loaded).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import Future, as_completed
from threading import Event

from gatenorm_stream.errors import CheckpointError
from gatenorm_stream.families.model import Model
from gatenorm_stream.families.projections import Projection
from gatenorm_stream.families.rows import Memory
from gatenorm_stream.families.sublayers import Attention
from gatenorm_stream.scoring.gate_norm import joint, per_head, stored
from gatenorm_stream.scoring.head_products import ColumnHeads, HeadsOfOneSide, NotFiniteError, RowHeads, Side
from gatenorm_stream.scoring.head_reader import HeadReader, expect_heads, row_blocks
from gatenorm_stream.scoring.readings import Reading
from gatenorm_stream.scoring.scorable import check_scorable
from gatenorm_stream.scoring.scores import LARGEST_SCORE, LayerScore
from gatenorm_stream.sources.source import Source
from gatenorm_stream.work import Progress, available_threads, workers

WHOLE = ("joint", "stored")
"""Readings that need whole projections, and so read them more than once."""
TASK_BYTES = 8 << 20
"""Of a local model, a task scores about as much: little to start, and enough tasks to share out evenly."""
REQUEST_BYTES = 4 << 20
"""Of a remote model, about as much of the queries: it comes in one request."""


def scored(
    model: Model, reading: Reading, *, threads: int | None = None, progress: Progress | None = None
) -> tuple[LayerScore, ...]:
    """Scores every attention sublayer. Raises as `score_sublayers` and `check_scorable` do."""
    check_scorable(model, reading)
    return score_sublayers(model.checkpoint.source, model.attention, reading, threads=threads, progress=progress)


def score_sublayers(
    source: Source,
    sublayers: Sequence[Attention],
    reading: Reading,
    *,
    threads: int | None = None,
    progress: Progress | None = None,
) -> tuple[LayerScore, ...]:
    """Scores `sublayers` of the model in `source`, in order. Reads their queries and keys, nothing else.

    Of a remote model, what is read more than once stays in temporary files. Raises CheckpointError, naming
    the tensor, if a projection holds inf or nan.
    """
    if reading in WHOLE and not source.keeps:
        source.keep_in(None)
    return _score_sublayers(source, sublayers, reading, threads, progress)


def _score_sublayers(
    source: Source,
    sublayers: Sequence[Attention],
    reading: Reading,
    threads: int | None,
    progress: Progress | None,
) -> tuple[LayerScore, ...]:
    parts = [(attention, keys) for attention in sublayers for keys in _parts(attention, reading, source.remote)]
    total = sum(attention.bytes for attention in sublayers)
    done = 0
    found: dict[tuple[int, int], Sequence[float]] = {}
    cancelled, memories = Event(), (Memory(), Memory())

    def cancel() -> None:
        cancelled.set()
        source.cancel()

    with workers(source.connections if source.remote else threads or available_threads(), cancel) as pool:
        tasks: dict[Future[Sequence[float]], tuple[Attention, range]] = {
            pool.submit(_score_part, source, attention, reading, part, memories, cancelled): (attention, part)
            for attention, part in parts
        }
        for task in as_completed(tasks):
            attention, part = tasks[task]
            found[attention.layer, part.start] = task.result()
            done += attention.bytes * len(part) // attention.heads.keys
            if progress:
                progress("scoring", done, total, attention.key.weight.tensor.shard.name)
    norms: dict[int, list[float]] = {attention.layer: [] for attention in sublayers}
    for attention, part in parts:
        norms[attention.layer] += (norm * attention.gain for norm in found[attention.layer, part.start])
    scores = tuple(
        LayerScore(layer, math.hypot(*heads), () if reading == "joint" else tuple(heads))
        for layer, heads in norms.items()
    )
    if largest := next((s for s in scores if not s.score <= LARGEST_SCORE), None):
        raise CheckpointError(
            f"layer {largest.layer} of {source.title} scores {largest.score:g}: its queries and keys are far "
            "larger than any model's; restore the checkpoint"
        )
    return scores


def _parts(attention: Attention, reading: Reading, remote: bool) -> list[range]:
    """The key heads that one task scores: all of them where heads mix or share what is read."""
    keys = attention.heads.keys
    if reading in WHOLE or any(p.transposed for p in attention.projections) or attention.key.latent:
        return [range(keys)]
    at_once, each = (REQUEST_BYTES, attention.query.bytes) if remote else (TASK_BYTES, attention.bytes)
    size = max(1, at_once * keys // each)
    return [range(g, min(g + size, keys)) for g in range(0, keys, size)]


def _score_part(
    source: Source,
    attention: Attention,
    reading: Reading,
    part: range,
    memories: tuple[Memory, Memory],
    cancelled: Event,
) -> Sequence[float]:
    heads = attention.heads
    try:
        if reading in WHOLE:
            if source.remote:
                for tensor, where in (*attention.query.ranges, *attention.key.ranges):
                    tensor.shard.file.read(where)  # comes at one go, and is kept
            query_of, key_of = (
                HeadReader(p, cancelled, memory, any_order=reading == "joint")
                for p, memory in zip(attention.projections, memories, strict=True)
            )
            if reading == "stored":
                return stored(query_of, key_of, heads)
            return (joint(query_of, key_of, heads, rows_at_once=query_of.rows_at_once),)
        expect_heads(attention.key, part)
        expect_heads(attention.query, range(part.start * heads.group, part.stop * heads.group))
        memory, _ = memories
        query = _heads(attention.query, "query", cancelled, memory)
        key = _heads(attention.key, "key", cancelled, memory)
        return per_head(query, key, heads, part)
    except NotFiniteError as error:
        projection = attention.query if error.side == "query" else attention.key
        names = " or ".join(t.name for t in projection.tensors)
        remedy = "fetch it anew (into an --out: with --restart)" if source.remote else "restore the checkpoint"
        raise CheckpointError(
            f"{names} in {source.title} holds inf or nan; its score would mean nothing: {remedy}"
        ) from error


def _heads(projection: Projection, side: Side, cancelled: Event, memory: Memory) -> HeadsOfOneSide:
    if projection.transposed:
        blocks = row_blocks(projection, cancelled, memory)
        return ColumnHeads(blocks, projection.starts, projection.dim, side)
    reader = HeadReader(projection, cancelled, memory)
    return RowHeads(reader, reader.for_gram, side, reader.at_once)
