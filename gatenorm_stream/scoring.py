"""A model's Gate-Norm scores: reads q and k by their byte ranges, shares the heads out over threads.

Each thread holds a few head-sized arrays and uses them again, so the memory needed does not grow with the model.
BLAS should run one thread for each of ours (the command sets OPENBLAS_NUM_THREADS=1 and its like before numpy is
loaded).
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from threading import Event
from typing import TypeAlias

from gatenorm_stream import gate_norm
from gatenorm_stream.errors import CheckpointError, UnsupportedModelError
from gatenorm_stream.families.model import Model
from gatenorm_stream.families.sublayers import Attention
from gatenorm_stream.gate_norm import NotFiniteError
from gatenorm_stream.head_reader import REQUEST_BYTES, HeadReader, Memory
from gatenorm_stream.readings import Reading
from gatenorm_stream.scores import LayerScore

Progress: TypeAlias = Callable[[str, int, int, str], None]
"""Called as progress(what, bytes done, bytes in all, file)."""

TASK_BYTES = 8 << 20
"""Of a local model, a task scores about as much: little to start, and enough tasks to share out evenly."""


def score_model(
    model: Model,
    reading: Reading = "per-head",
    *,
    threads: int | None = None,
    progress: Progress | None = None,
) -> tuple[LayerScore, ...]:
    """Scores every attention sublayer, in order. Reads the query and key projections, nothing else.

    Raises CheckpointError, naming the tensor, if a projection holds inf or nan, and UnsupportedModelError for the
    reading `stored` of a model that stores no key projection (MLA).
    """
    source = model.checkpoint.source
    if reading == "stored" and model.family.latent:
        raise UnsupportedModelError(
            f"{source.title} computes its keys from a latent, so there is no stored key projection to read; use "
            "--reading per-head or joint"
        )
    parts = [(a, heads) for a in model.attention for heads in _parts(a, reading, source.remote)]
    total = sum(a.bytes for a in model.attention)
    done = 0
    found: dict[tuple[int, int], Sequence[float]] = {}
    cancelled, memories = Event(), (Memory(), Memory())
    with ThreadPoolExecutor(source.connections if source.remote else threads or available_threads()) as pool:
        tasks: dict[Future[Sequence[float]], tuple[Attention, range]] = {
            pool.submit(_score_part, model, attention, reading, part, memories, cancelled): (attention, part)
            for attention, part in parts
        }
        try:
            for task in as_completed(tasks):
                attention, part = tasks[task]
                found[attention.layer, part.start] = task.result()
                done += attention.bytes * len(part) // attention.heads.keys
                if progress:
                    progress("scoring", done, total, attention.key.weight.tensor.shard.name)
        except BaseException:
            cancelled.set()
            source.cancel()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    norms: dict[int, list[float]] = {a.layer: [] for a in model.attention}
    for attention, part in parts:
        norms[attention.layer] += found[attention.layer, part.start]
    return tuple(
        LayerScore(layer, math.hypot(*heads), () if reading == "joint" else tuple(heads))
        for layer, heads in norms.items()
    )


def _parts(attention: Attention, reading: Reading, remote: bool) -> list[range]:
    """The key heads that one task scores: all of them where heads mix or share what is read."""
    keys = attention.heads.keys
    if reading != "per-head" or attention.query.transposed or attention.key.latent:
        return [range(keys)]
    at_once, each = (REQUEST_BYTES, attention.query.bytes) if remote else (TASK_BYTES, attention.bytes)
    size = max(1, at_once * keys // each)
    return [range(g, min(g + size, keys)) for g in range(0, keys, size)]


def available_threads() -> int:
    """The processors that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:
        return os.cpu_count() or 1


def _score_part(
    model: Model,
    attention: Attention,
    reading: Reading,
    part: range,
    memories: tuple[Memory, Memory],
    cancelled: Event,
) -> Sequence[float]:
    source, heads = model.checkpoint.source, attention.heads
    query = HeadReader(attention.query, part.stop * heads.group, cancelled, memories[0], remote=source.remote)
    key = HeadReader(attention.key, part.stop, cancelled, memories[1], remote=source.remote)
    try:
        if reading == "per-head":
            key.expect(part)
            query.expect(range(part.start * heads.group, part.stop * heads.group))
            return [norm for g in part for norm in gate_norm.per_head(query, key, heads, g)]
        if source.remote:
            for tensor, where in (*attention.query.ranges, *attention.key.ranges):
                tensor.shard.file.read(where)  # comes at one go, and is kept
        if reading == "joint":
            return (gate_norm.joint(query, key, heads),)
        return gate_norm.stored(query, key, heads)
    except NotFiniteError as error:
        projection = attention.query if error.projection == "query" else attention.key
        names = " or ".join(t.name for t in projection.tensors)
        remedy = "fetch it anew (into an --out: with --restart)" if source.remote else "restore the checkpoint"
        raise CheckpointError(
            f"{names} in {source.title} holds inf or nan; its score would mean nothing: {remedy}"
        ) from error
