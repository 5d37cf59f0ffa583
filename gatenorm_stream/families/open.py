"""A source becomes a model: a safetensors checkpoint or GGUF files, read through the row of its family."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from gatenorm_stream.checkpoint.gguf import open_gguf
from gatenorm_stream.checkpoint.safetensors import open_checkpoint
from gatenorm_stream.families.gguf import read_gguf_model
from gatenorm_stream.families.model import Model, read_model
from gatenorm_stream.sources.source import Kind, Source


@contextmanager
def open_model(source: Source, *, pruned: bool = False) -> Iterator[Model]:
    """Reads the model in `source`, and closes it at the end.

    With `pruned`, an output of ours is a model too: its attention is what is left, its config the source's. What
    scores, plans or prunes wants originals. Raises CheckpointError or UnsupportedModelError.
    """
    if source.kind is Kind.GGUF:
        with open_gguf(source) as gguf:
            yield read_gguf_model(gguf, pruned=pruned)
    else:
        with open_checkpoint(source) as checkpoint:
            yield read_model(checkpoint, pruned=pruned)
