"""Scores a model on a dask.distributed cluster that is there already, one layer a task.

What travels to a worker is where a layer's tensors stand: the headers are read once, by the caller. The worker
opens the source itself (the same path, or the Hub), reads that layer's two projections, and sends back its scores.
Tasks of a worker that dies are run by another.
"""

from __future__ import annotations

import io
import os
import pickle
import re
from collections.abc import Iterator
from concurrent.futures import CancelledError
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib import import_module
from ipaddress import ip_address
from typing import Any

from gatenorm_stream.checkpoint.tensors import Shard
from gatenorm_stream.errors import CheckpointError, GateNormError
from gatenorm_stream.families.model import Model
from gatenorm_stream.families.sublayers import Attention
from gatenorm_stream.scoring.readings import Reading
from gatenorm_stream.scoring.scorable import check_scorable
from gatenorm_stream.scoring.score import score_sublayers
from gatenorm_stream.scoring.scores import LayerScore
from gatenorm_stream.sources.hub.guard import within
from gatenorm_stream.sources.open import open_source
from gatenorm_stream.sources.source import Source
from gatenorm_stream.version import install
from gatenorm_stream.work import Progress

ADDRESS, CERTIFICATES = "is that the scheduler's address", "distributed.comm.tls"
PATIENCE = "30s"
SLACK = 5.0
_HOST_AND_PORT = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([\w.-]+))(?::\d+)?/?", re.ASCII)
"""A host, in brackets if it is an IPv6 address, and its port."""


def score_on_cluster(
    scheduler: str,
    model: Model,
    reading: Reading = "per-head",
    *,
    insecure: bool = False,
    progress: Progress | None = None,
) -> tuple[LayerScore, ...]:
    """The same scores as `scored(model, reading)`, in the same order, computed by the workers of `scheduler`.

    Client, scheduler and workers run each other's code: with dask, whoever speaks for one of them owns all. So off
    this machine it takes tls://, whose certificates dask's own configuration names, or `insecure`.

    A worker runs as many layers at once as it has threads. Bit for bit the same if its numpy and its kind of
    processor are. Raises GateNormError if the scheduler can't be reached, falls silent, or the workers can't do it,
    and what `scored` raises.
    """
    check_address(scheduler, insecure=insecure)
    try:
        distributed: Any = import_module("distributed")
    except ImportError as error:
        raise GateNormError(f"--dask needs dask.distributed: {install('dask')}") from error
    check_scorable(model, reading)
    source, sublayers = model.checkpoint.source, model.attention
    total = sum(attention.bytes for attention in sublayers)
    done, scores = 0, {}
    try:
        with _connected(distributed, scheduler) as client, client.as_current():
            tasks = {
                client.submit(_score_layer, _packed(source, attention), reading, pure=False): attention
                for attention in sublayers
            }
            for task in _completed(distributed, client, set(tasks)):
                attention = tasks[task]
                scores[attention.layer] = task.result(timeout=PATIENCE)
                done += attention.bytes
                if progress:
                    progress("scoring", done, total, attention.key.weight.tensor.shard.name)
    except distributed.KilledWorker as error:
        raise GateNormError(f"workers of {scheduler} died over the same layer again and again: {error}") from error
    except ModuleNotFoundError as error:
        raise GateNormError(
            f"a worker of {scheduler} has no {error.name}; install gatenorm-stream there"
        ) from error
    except TimeoutError as error:
        raise GateNormError(
            f"{scheduler} can't be reached, or fell silent for {PATIENCE}; is that the scheduler's address?"
        ) from error
    except (OSError, ValueError, TypeError, CancelledError) as error:  # two for what is no address at all
        raise GateNormError(f"{scheduler} can't be reached: {error}; is that the scheduler's address?") from error
    return tuple(scores[attention.layer] for attention in sublayers)


def _connected(distributed: Any, scheduler: str) -> Any:
    """A client. Raises GateNormError, whatever a stranger's answer makes of dask's own parsing."""
    try:
        seconds = SLACK + float(PATIENCE.removesuffix("s"))  # dask's own limit ends where a socket is accepted
        return within(seconds, lambda: distributed.Client(scheduler, timeout=PATIENCE, set_as_default=False))
    except Exception as error:
        tls = scheduler.startswith("tls://")
        ask = f"does dask's configuration name certificates that it knows ({CERTIFICATES})" if tls else ADDRESS
        raise GateNormError(f"{scheduler} can't be reached ({type(error).__name__}); {ask}?") from error


def check_address(scheduler: str, *, insecure: bool) -> None:
    """Raises GateNormError for what is neither encrypted nor on this machine, unless that is wanted."""
    scheme, separator, rest = scheduler.partition("://")
    scheme, address = (scheme, rest) if separator else ("tcp", scheduler)
    if scheme == "tls" or insecure or (scheme == "tcp" and _is_loopback(address)):
        return
    raise GateNormError(
        f"{scheduler} is not encrypted, and whoever is on the way could run code here; give tls://HOST:PORT, or "
        "--dask-insecure where you trust the network"
    )


def _is_loopback(address: str) -> bool:
    if not (match := _HOST_AND_PORT.fullmatch(address)):
        return False
    host = match[1] or match[2]
    with suppress(ValueError):
        return ip_address(host).is_loopback
    return host == "localhost"


def _completed(distributed: Any, client: Any, waiting: set[Any]) -> Iterator[Any]:
    """Each task as it is done. Where none is for a while, the scheduler must at least answer: else TimeoutError."""
    while waiting:
        try:
            done = distributed.wait(waiting, timeout=PATIENCE, return_when="FIRST_COMPLETED").done
        except TimeoutError:
            client.sync(client.scheduler.identity, callback_timeout=PATIENCE)
            continue
        waiting -= done
        yield from done


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
            raise CheckpointError(f"{file.title} is not the same file here as where scoring was asked for")
        return Shard(name, file, header)
