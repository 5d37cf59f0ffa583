"""A model's Gate-Norm scores: reads q and k by their byte ranges, shares the heads out over threads.

Each thread holds a few head-sized arrays; pages of the checkpoint are released once they are scored, so the
memory needed does not grow with the model. BLAS should run one thread for each of ours (the command sets
OPENBLAS_NUM_THREADS=1 and its like before numpy is loaded).
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor, as_completed
from threading import Event
from typing import TypeAlias

from gatenorm_stream import gate_norm
from gatenorm_stream.checkpoint.open import Tensor
from gatenorm_stream.errors import CheckpointError
from gatenorm_stream.families import Model
from gatenorm_stream.floats import FloatArray, widen
from gatenorm_stream.gate_norm import Heads, NotFiniteError
from gatenorm_stream.readings import Reading
from gatenorm_stream.scores import LayerScore

Progress: TypeAlias = Callable[[str, int, int], None]
"""Called as progress(what, bytes done, bytes in all)."""


def score_model(
    model: Model,
    reading: Reading = "per-head",
    *,
    threads: int | None = None,
    progress: Progress | None = None,
) -> tuple[LayerScore, ...]:
    """Scores every layer, in order. Reads the query and key projections, nothing else.

    Raises CheckpointError, naming the tensor, if a projection holds inf or nan.
    """
    heads = Heads(model.heads, model.kv_heads, model.head_dim)
    parts = range(heads.keys) if reading == "per-head" else range(1)
    total = sum(len(t.range) for t in (*model.queries, *model.keys))
    layer_bytes = total // model.layers
    done = 0
    found: dict[tuple[int, int], Sequence[float]] = {}
    cancelled = Event()
    with ThreadPoolExecutor(threads or available_threads()) as pool:
        tasks: dict[Future[Sequence[float]], tuple[int, int]] = {
            pool.submit(_score_part, model, layer, reading, heads, part, cancelled): (layer, part)
            for layer in range(model.layers)
            for part in parts
        }
        try:
            for task in as_completed(tasks):
                found[tasks[task]] = task.result()
                done += layer_bytes // len(parts)
                if progress:
                    progress("scoring", done, total)
        except BaseException:
            cancelled.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return tuple(_layer(n, reading, [found[n, part] for part in parts]) for n in range(model.layers))


def available_threads() -> int:
    """The processors that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:
        return os.cpu_count() or 1


def _layer(layer: int, reading: Reading, parts: list[Sequence[float]]) -> LayerScore:
    norms = tuple(norm for part in parts for norm in part)
    return LayerScore(layer, math.hypot(*norms), () if reading == "joint" else norms)


def _score_part(
    model: Model, layer: int, reading: Reading, heads: Heads, part: int, cancelled: Event
) -> Sequence[float]:
    query, key = _rows(model.queries[layer], cancelled), _rows(model.keys[layer], cancelled)
    try:
        if reading == "per-head":
            return gate_norm.per_head(query, key, heads, part)
        if reading == "joint":
            return (gate_norm.joint(query, key, heads),)
        return gate_norm.stored(query, key, heads)
    except NotFiniteError as error:
        tensor = (model.queries if error.projection == "query" else model.keys)[layer]
        raise CheckpointError(
            f"{tensor.name} in {model.checkpoint.source} holds inf or nan; its score would mean nothing: "
            "restore the checkpoint"
        ) from error


def _rows(tensor: Tensor, cancelled: Event) -> gate_norm.Rows:
    """Reads rows of a stored projection into arrays of their own and releases the mapped pages.

    Raises CancelledError once `cancelled` is set.
    """
    out, hidden = tensor.shape
    row_bytes = len(tensor.range) // out
    file = tensor.shard.file

    def read(start: int, stop: int) -> FloatArray:
        if cancelled.is_set():
            raise CancelledError
        where = tensor.range.part(start * row_bytes, stop * row_bytes)
        rows = widen(file.read(where), tensor.dtype, (stop - start, hidden))
        file.release(where)
        return rows

    return read
