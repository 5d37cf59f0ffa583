"""Which models a reading can score, as far as their headers tell."""

from __future__ import annotations

from gatenorm_stream.errors import UnsupportedModelError
from gatenorm_stream.families.model import Model
from gatenorm_stream.families.projections import Projection
from gatenorm_stream.families.unread import REMEDY
from gatenorm_stream.scoring.readings import Reading

LARGEST_DIM = 1024
LARGEST_HEAD = 1 << 22
"""Numbers of a head, which scoring holds in memory: twice those of Llama 3.1 405B."""


def check_scorable(model: Model, reading: Reading) -> None:
    """Raises UnsupportedModelError for weights whose numbers are not read, for the reading `stored` of a model that
    stores no key projection (MLA), and for heads that are larger than any known.
    """
    title = model.checkpoint.source.title
    if model.unread:
        raise UnsupportedModelError(f"{model.unread}; {REMEDY}")
    if reading == "stored" and model.family.latent:
        raise UnsupportedModelError(
            f"{title} computes its keys from a latent, so there is no stored key projection to read; use --reading "
            "per-head or joint"
        )
    for attention in model.attention:
        for projection in attention.projections:
            _check_size(projection, title)


def _check_size(projection: Projection, title: str) -> None:
    tensor = projection.weight.tensor
    width = tensor.shape[0 if projection.transposed else 1]
    if projection.dim > LARGEST_DIM or projection.dim * width > LARGEST_HEAD:
        raise UnsupportedModelError(
            f"{title} has heads of {projection.dim} x {width} numbers in {tensor.name}, larger than any known "
            "model's: scoring holds a head in memory and refuses larger ones"
        )
