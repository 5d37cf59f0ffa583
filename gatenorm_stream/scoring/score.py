"""A model's scores: reads two projections a layer by their byte ranges, shares the heads out over threads.

Each thread holds a few head-sized arrays and uses them again, so the memory needed does not grow with the model.
BLAS should run one thread for each of ours (the command sets OPENBLAS_NUM_THREADS=1 and its like before numpy is
loaded).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event

from gatenorm_stream.checkpoint.tensors import Tensor
from gatenorm_stream.errors import CheckpointError
from gatenorm_stream.families.model import Model
from gatenorm_stream.families.projections import Pair, Projection
from gatenorm_stream.families.rows import Memory
from gatenorm_stream.scoring.gate_norm import joint, per_head, stored
from gatenorm_stream.scoring.head_products import ColumnHeads, Fold, HeadsOfOneSide, NotFiniteError, RowHeads, Side
from gatenorm_stream.scoring.head_reader import HeadReader, expect_heads, read_fold, row_blocks
from gatenorm_stream.scoring.pairs import pairs
from gatenorm_stream.scoring.readings import Reading
from gatenorm_stream.scoring.scores import LayerScore
from gatenorm_stream.sources.source import Source
from gatenorm_stream.work import Progress, available_threads

WHOLE = ("joint", "stored")
"""Readings that need whole projections, and so read them more than once."""
TASK_BYTES = 8 << 20
"""Of a local model, a task scores about as much: little to start, and enough tasks to share out evenly."""
REQUEST_BYTES = 4 << 20
"""Of a remote model, about as much of the left side: it comes in one request."""


def scored(
    model: Model, reading: Reading, *, threads: int | None = None, progress: Progress | None = None
) -> tuple[LayerScore, ...]:
    """Scores every attention sublayer. Raises as `score_pairs` and `pairs` do."""
    return scored_pairs(model.checkpoint.source, pairs(model, reading), reading, threads=threads, progress=progress)


def scored_pairs(
    source: Source,
    layers: Sequence[Pair],
    reading: Reading,
    *,
    threads: int | None = None,
    progress: Progress | None = None,
) -> tuple[LayerScore, ...]:
    """`score_pairs`; a remote model's projections that are read more than once stay in a temporary directory."""
    if reading not in WHOLE or source.keeps:
        return score_pairs(source, layers, reading, threads=threads, progress=progress)
    with TemporaryDirectory(prefix="gatenorm-") as folder:
        source.keep_in(Path(folder))
        return score_pairs(source, layers, reading, threads=threads, progress=progress)


def score_pairs(
    source: Source,
    layers: Sequence[Pair],
    reading: Reading,
    *,
    threads: int | None = None,
    progress: Progress | None = None,
) -> tuple[LayerScore, ...]:
    """Scores `layers` of the model in `source`, in order. Reads the projections of each pair, nothing else.

    Raises CheckpointError, naming the tensor, if a projection holds inf or nan.
    """
    parts = [(pair, heads) for pair in layers for heads in _parts(pair, reading, source.remote)]
    total = sum(pair.bytes for pair in layers)
    done = 0
    found: dict[tuple[int, int], Sequence[float]] = {}
    cancelled, memories = Event(), (Memory(), Memory())
    with ThreadPoolExecutor(source.connections if source.remote else threads or available_threads()) as pool:
        tasks: dict[Future[Sequence[float]], tuple[Pair, range]] = {
            pool.submit(_score_part, source, pair, reading, part, memories, cancelled): (pair, part)
            for pair, part in parts
        }
        try:
            for task in as_completed(tasks):
                pair, part = tasks[task]
                found[pair.layer, part.start] = task.result()
                done += pair.bytes * len(part) // pair.heads.keys
                if progress:
                    progress("scoring", done, total, pair.right.weight.tensor.shard.name)
        except BaseException:
            cancelled.set()
            source.cancel()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    norms: dict[int, list[float]] = {pair.layer: [] for pair in layers}
    for pair, part in parts:
        norms[pair.layer] += found[pair.layer, part.start]
    return tuple(
        LayerScore(layer, math.hypot(*heads), () if reading == "joint" else tuple(heads))
        for layer, heads in norms.items()
    )


def _parts(pair: Pair, reading: Reading, remote: bool) -> list[range]:
    """The key heads that one task scores: all of them where heads mix or share what is read."""
    keys = pair.heads.keys
    if reading in WHOLE or any(p.transposed for p in pair.sides) or pair.right.latent:
        return [range(keys)]
    at_once, each = (REQUEST_BYTES, pair.left.bytes) if remote else (TASK_BYTES, pair.bytes)
    size = max(1, at_once * keys // each)
    return [range(g, min(g + size, keys)) for g in range(0, keys, size)]


def _score_part(
    source: Source,
    pair: Pair,
    reading: Reading,
    part: range,
    memories: tuple[Memory, Memory],
    cancelled: Event,
) -> Sequence[float]:
    heads = pair.heads
    try:
        if reading in WHOLE:
            if source.remote:
                for tensor, where in (*pair.left.ranges, *pair.right.ranges):
                    tensor.shard.file.read(where)  # comes at one go, and is kept
            left, right = (HeadReader(p, cancelled, memory) for p, memory in zip(pair.sides, memories, strict=True))
            return (joint(left, right, heads),) if reading == "joint" else stored(left, right, heads)
        expect_heads(pair.right, part)
        expect_heads(pair.left, range(part.start * heads.group, part.stop * heads.group))
        memory, _ = memories
        return per_head(
            _heads(pair.left, "left", cancelled, memory),
            _heads(pair.right, "right", cancelled, memory),
            heads,
            part,
        )
    except NotFiniteError as error:
        names = " or ".join(t.name for t in _tensors(pair, error.side))
        remedy = "fetch it anew (into an --out: with --restart)" if source.remote else "restore the checkpoint"
        raise CheckpointError(
            f"{names} in {source.title} holds inf or nan; its score would mean nothing: {remedy}"
        ) from error


def _heads(projection: Projection, side: Side, cancelled: Event, memory: Memory) -> HeadsOfOneSide:
    fold = read_fold(projection.norm)
    if projection.transposed:
        blocks = row_blocks(projection, cancelled, memory)
        return ColumnHeads(blocks, projection.starts, projection.dim, side, fold)
    reader = HeadReader(projection, cancelled, memory, fold=fold)
    return RowHeads(reader.heads, side, Fold(peak=fold.peak) if projection.latent else fold, reader.at_once)


def _tensors(pair: Pair, side: Side) -> Iterable[Tensor]:
    """That are read for the side which holds inf or nan."""
    if side == "norm":
        return (pair.right.norm.tensor,) if pair.right.norm else ()
    return (pair.left if side == "left" else pair.right).tensors
