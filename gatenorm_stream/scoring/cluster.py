"""Scores a model on a dask.distributed cluster that is there already, one layer a task.

What travels to a worker is where a layer's tensors stand: the headers are read once, by the caller. The worker
opens the source itself (the same path, or the Hub), reads that layer's two projections, and sends back its scores.
Tasks of a worker that dies are run by another.
"""

from __future__ import annotations

import io
import os
import pickle
from dataclasses import dataclass, replace
from importlib import import_module
from typing import Any

from gatenorm_stream.checkpoint.tensors import Shard
from gatenorm_stream.errors import CheckpointError, GateNormError
from gatenorm_stream.families.model import Model
from gatenorm_stream.families.sublayers import Attention
from gatenorm_stream.scoring.readings import Reading
from gatenorm_stream.scoring.scorable import check_scorable
from gatenorm_stream.scoring.score import score_sublayers
from gatenorm_stream.scoring.scores import LayerScore
from gatenorm_stream.sources.open import open_source
from gatenorm_stream.sources.source import Source
from gatenorm_stream.work import Progress

PATIENCE = "30s"


def score_on_cluster(
    scheduler: str, model: Model, reading: Reading = "per-head", *, progress: Progress | None = None
) -> tuple[LayerScore, ...]:
    """The same scores as `scored(model, reading)`, in the same order, computed by the workers of `scheduler`.

    A worker runs as many layers at once as it has threads. Bit for bit the same if its numpy and its kind of
    processor are. Raises GateNormError if the scheduler can't be reached or the workers can't do it, and what
    `scored` raises.
    """
    try:
        distributed: Any = import_module("distributed")
    except ImportError as error:
        raise GateNormError("--dask needs dask.distributed; pip install 'gatenorm-stream[dask]'") from error
    check_scorable(model, reading)
    source, sublayers = model.checkpoint.source, model.attention
    total = sum(attention.bytes for attention in sublayers)
    done, scores = 0, {}
    try:
        with distributed.Client(scheduler, timeout=PATIENCE, set_as_default=False) as client:
            tasks = {
                client.submit(_score_layer, _packed(source, attention), reading, pure=False): attention
                for attention in sublayers
            }
            for task, score in distributed.as_completed(tasks, loop=client.loop, with_results=True):
                attention = tasks[task]
                scores[attention.layer] = score
                done += attention.bytes
                if progress:
                    progress("scoring", done, total, attention.key.weight.tensor.shard.name)
    except distributed.KilledWorker as error:
        raise GateNormError(f"workers of {scheduler} died over the same layer again and again: {error}") from error
    except ModuleNotFoundError as error:
        raise GateNormError(
            f"a worker of {scheduler} has no {error.name}; install gatenorm-stream there"
        ) from error
    except (OSError, ValueError, TypeError) as error:  # the last two for what is no address at all
        raise GateNormError(f"{scheduler} can't be reached: {error}; is that the scheduler's address?") from error
    return tuple(scores[attention.layer] for attention in sublayers)


@dataclass(frozen=True)
class _Layer:
    """`content` is the pickle of its attention, in which files are only named."""

    source: str
    revision: str | None
    content: bytes


def _packed(source: Source, attention: Attention) -> _Layer:
    content = io.BytesIO()
    _Pickler(content).dump(attention)
    where = (
        source.title if source.directory is None else os.path.abspath(source.directory.joinpath(*source.gguf[:1]))
    )
    return _Layer(where, None if source.directory else source.revision, content.getvalue())


def _score_layer(layer: _Layer, reading: Reading) -> LayerScore:
    """On the worker."""
    source = open_source(layer.source, revision=layer.revision)
    try:
        attention: Attention = _Unpickler(io.BytesIO(layer.content), source).load()
        (score,) = score_sublayers(source, (attention,), reading, threads=1)
        return score
    finally:
        source.close()


class _Pickler(pickle.Pickler):
    def persistent_id(self, value: Any) -> Any:
        match value:
            case Shard(name, file, header):
                return name, file.identity, replace(header, tensors=(), metadata={})
        return None


class _Unpickler(pickle.Unpickler):
    def __init__(self, content: io.BytesIO, source: Source) -> None:
        super().__init__(content)
        self._source = source

    def persistent_load(self, known: Any) -> Any:
        name, identity, header = known
        file = self._source.open(name)
        if file.identity != identity:
            raise CheckpointError(f"{file.where} is not the same file here as where scoring was asked for")
        return Shard(name, file, header)
