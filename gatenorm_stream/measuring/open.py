"""A model becomes what can be run: by numpy where that can, else by transformers' stock layers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from gatenorm_stream.families.model import Model
from gatenorm_stream.families.unread import UnreadError
from gatenorm_stream.measuring.decoder import Decoder
from gatenorm_stream.measuring.numpy_decoder import numpy_decoder, numpy_obstacle
from gatenorm_stream.work import available_threads


@contextmanager
def open_decoder(model: Model, *, threads: int | None = None) -> Iterator[Decoder]:
    """Raises UnsupportedModelError, with what to install, if neither runs it here; CheckpointError for damage."""
    if model.unread:
        raise UnreadError(model.unread)
    if numpy_obstacle(model) is None:
        with numpy_decoder(model, threads=threads) as decoder:
            yield decoder
        return
    from gatenorm_stream.measuring.with_transformers import decode_with_transformers

    yield decode_with_transformers(model, threads or available_threads())
