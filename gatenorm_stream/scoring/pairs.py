"""Which two projections of each attention sublayer a reading multiplies."""

from __future__ import annotations

from gatenorm_stream.checkpoint.gguf import GgufCheckpoint
from gatenorm_stream.errors import UnsupportedModelError
from gatenorm_stream.families.gguf import gguf_value_output
from gatenorm_stream.families.model import Model, value_output
from gatenorm_stream.families.projections import Pair, Projection
from gatenorm_stream.scoring.readings import EXPERIMENTAL, Reading

LARGEST_DIM = 1024
LARGEST_HEAD = 1 << 22
"""Numbers of a head, which scoring holds in memory: twice those of Llama 3.1 405B."""


def pairs(model: Model, reading: Reading) -> tuple[Pair, ...]:
    """Queries and keys, or outputs and values. Only headers are read.

    Raises UnsupportedModelError for the reading `stored` of a model that stores no key projection (MLA), and for
    heads that are larger than any known; it or CheckpointError if outputs or values are not there or in a form that
    is not read.
    """
    found = _pairs(model, reading)
    for pair in found:
        for projection in pair.sides:
            _check_size(projection, model.checkpoint.source.title)
    return found


def _pairs(model: Model, reading: Reading) -> tuple[Pair, ...]:
    if reading == EXPERIMENTAL:
        return (gguf_value_output if isinstance(model.checkpoint, GgufCheckpoint) else value_output)(model)
    if reading == "stored" and model.family.latent:
        raise UnsupportedModelError(
            f"{model.checkpoint.source.title} computes its keys from a latent, so there is no stored key "
            "projection to read; use --reading per-head or joint"
        )
    return tuple(Pair(a.layer, a.heads, a.query, a.key) for a in model.attention)


def _check_size(projection: Projection, title: str) -> None:
    tensor = projection.weight.tensor
    width = tensor.shape[0 if projection.transposed else 1]
    if projection.dim > LARGEST_DIM or projection.dim * width > LARGEST_HEAD:
        raise UnsupportedModelError(
            f"{title} has heads of {projection.dim} x {width} numbers in {tensor.name}, larger than any known "
            "model's: scoring holds a head in memory, and takes none for these"
        )
