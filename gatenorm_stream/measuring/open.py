"""A model becomes what can be run: by numpy where that can, else by transformers' stock layers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from gatenorm_stream.errors import UnsupportedModelError
from gatenorm_stream.families.model import Model
from gatenorm_stream.families.model_class import attends_both_ways, class_of, named_class, own_classes
from gatenorm_stream.families.unread import UnreadError
from gatenorm_stream.measuring.decoder import Decoder
from gatenorm_stream.measuring.numpy_decoder import numpy_decoder, numpy_obstacle
from gatenorm_stream.sources.source import Kind
from gatenorm_stream.work import available_threads


@contextmanager
def open_decoder(model: Model, *, threads: int | None = None) -> Iterator[Decoder]:
    """Raises UnsupportedModelError, with what to install, if neither runs it here, or if it is no language model;
    CheckpointError for damage.
    """
    check_language_model(model)
    if model.unread:
        raise UnreadError(model.unread)
    if numpy_obstacle(model) is None:
        with numpy_decoder(model, threads=threads) as decoder:
            yield decoder
        return
    from gatenorm_stream.measuring.with_transformers import decode_with_transformers

    yield decode_with_transformers(model, threads or available_threads())


def check_language_model(model: Model) -> None:
    """Raises UnsupportedModelError if a loss of the stock class would not be that of the checkpoint's own."""
    if model.checkpoint.kind is Kind.GGUF:
        return
    built, where = class_of(model), model.checkpoint.config_where
    if own := own_classes(model):
        what = f"auto_map={own[0]}, a class of its own"
    elif not model.multimodal and (built is None or not built.is_language_model):
        what = f"architectures={[named_class(model.config)]}"
    elif attends_both_ways(model.config):
        what = "attention to later tokens too"
    else:
        return
    raise UnsupportedModelError(
        f"{where} has {what}, so that no loss on text can be measured; choose by the weights alone "
        "(no --compensate, --by influence or --max-rise)"
    )
