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
from gatenorm_stream.checkpoint.ranges import ByteRange
from gatenorm_stream.errors import CheckpointError
from gatenorm_stream.families import Model
from gatenorm_stream.floats import FloatArray, widen
from gatenorm_stream.gate_norm import Heads, NotFiniteError
from gatenorm_stream.readings import Reading
from gatenorm_stream.scores import LayerScore

Progress: TypeAlias = Callable[[str, int, int, str], None]
"""Called as progress(what, bytes done, bytes in all, file)."""

REQUEST_BYTES = 4 << 20
"""A remote file is read in requests of about this size."""


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
    source = model.checkpoint.source
    parts = _parts(model, heads, reading)
    total = sum(len(t.range) for t in (*model.queries, *model.keys))
    done = 0
    found: dict[tuple[int, int], Sequence[float]] = {}
    cancelled = Event()
    with ThreadPoolExecutor(source.connections if source.remote else threads or available_threads()) as pool:
        tasks: dict[Future[Sequence[float]], tuple[int, range]] = {
            pool.submit(_score_part, model, layer, reading, heads, part, cancelled): (layer, part)
            for layer in range(model.layers)
            for part in parts
        }
        try:
            for task in as_completed(tasks):
                layer, part = tasks[task]
                found[layer, part.start] = task.result()
                done += total // model.layers * len(part) // heads.keys
                if progress:
                    progress("scoring", done, total, model.keys[layer].shard.name)
        except BaseException:
            cancelled.set()
            source.cancel()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return tuple(_layer(n, reading, [found[n, part.start] for part in parts]) for n in range(model.layers))


def _parts(model: Model, heads: Heads, reading: Reading) -> tuple[range, ...]:
    """The key heads that one task scores: all of them where heads mix, a request's worth of a remote model."""
    if reading != "per-head":
        return (range(heads.keys),)
    size = 1
    if model.checkpoint.source.remote:
        size = max(1, REQUEST_BYTES * heads.keys // len(model.queries[0].range))
    return tuple(range(g, min(g + size, heads.keys)) for g in range(0, heads.keys, size))


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
    model: Model, layer: int, reading: Reading, heads: Heads, part: range, cancelled: Event
) -> Sequence[float]:
    query = _Rows(model, model.queries[layer], part.stop * heads.group * heads.dim, cancelled)
    key = _Rows(model, model.keys[layer], part.stop * heads.dim, cancelled)
    try:
        if reading == "per-head":
            return [norm for g in part for norm in gate_norm.per_head(query, key, heads, g)]
        for tensor in (model.queries[layer], model.keys[layer]):
            tensor.shard.file.read(tensor.range)  # what is remote comes at one go
        if reading == "joint":
            return (gate_norm.joint(query, key, heads),)
        return gate_norm.stored(query, key, heads)
    except NotFiniteError as error:
        tensor = (model.queries if error.projection == "query" else model.keys)[layer]
        raise CheckpointError(
            f"{tensor.name} in {model.checkpoint.source.title} holds inf or nan; its score would mean nothing: "
            "restore the checkpoint"
        ) from error


class _Rows:
    """Rows of a stored projection, widened into arrays of their own; mapped pages are released at once.

    Of a remote file, at least REQUEST_BYTES are read at once (up to the row `stop`), and kept for the next call.
    Raises CancelledError once `cancelled` is set.
    """

    def __init__(self, model: Model, tensor: Tensor, stop: int, cancelled: Event) -> None:
        self._tensor = tensor
        self._stop = stop
        self._cancelled = cancelled
        self._row_bytes = len(tensor.range) // tensor.shape[0]
        self._at_once = REQUEST_BYTES // self._row_bytes if model.checkpoint.source.remote else 0
        self._read = range(0)
        self._data = memoryview(b"")

    def __call__(self, start: int, stop: int) -> FloatArray:
        if self._cancelled.is_set():
            raise CancelledError
        if start < self._read.start or stop > self._read.stop:
            self._read = range(start, max(stop, min(start + self._at_once, self._stop)))
            self._data = self._tensor.shard.file.read(self._bytes(self._read.start, self._read.stop))
        first = (start - self._read.start) * self._row_bytes
        data = self._data[first : first + (stop - start) * self._row_bytes]
        rows = widen(data, self._tensor.dtype, (stop - start, self._tensor.shape[1]))
        self._tensor.shard.file.release(self._bytes(start, stop))
        return rows

    def _bytes(self, start: int, stop: int) -> ByteRange:
        return self._tensor.range.part(start * self._row_bytes, stop * self._row_bytes)
