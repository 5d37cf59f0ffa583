"""Which models a reading can score, and whether that takes no more than it may, as far as their headers tell."""

from __future__ import annotations

from gatenorm_stream.errors import UnsupportedModelError
from gatenorm_stream.families.model import Model
from gatenorm_stream.families.projections import Projection, Weight
from gatenorm_stream.families.sublayers import Attention
from gatenorm_stream.families.unread import REMEDY
from gatenorm_stream.scoring.readings import Reading

LARGEST_DIM = 1024
LARGEST_HEAD = 1 << 22
"""Numbers of a head, which scoring holds in memory: twice those of Llama 3.1 405B."""
LARGEST_GRAMS = 1 << 24
"""Numbers of the Gram matrices that are held together: of the query heads that share a key head, or of all heads of
a projection that is read by columns. Twice those of 128 heads of 256."""
LARGEST_LATENT = 1 << 25
"""Numbers of a latent's projection, which is held in float64: three times those of DeepSeek-V3."""
LARGEST_SCALE = 1 << 24
"""Numbers that multiply the blocks of a weight: twice one for each 32 numbers of Llama 3.1 405B's queries."""
MOST_BYTES = 1 << 40
"""Of all queries and keys: 15 times Llama 3.1 405B's."""
MOST_OPERATIONS = 10**15
"""Multiplications and additions: a hundred times those of Llama 3.1 405B, read head by head."""


def check_scorable(model: Model, reading: Reading) -> None:
    """Raises UnsupportedModelError for weights whose numbers are not read, for the reading `stored` of a model that
    stores no key projection (MLA), and for what is so much larger than any known model that it can't be one.
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
        grams = attention.heads.queries if attention.query.transposed else attention.heads.group
        _check(grams * attention.heads.dim**2, LARGEST_GRAMS, "numbers in the Gram matrices", attention, title)
    last = model.attention[-1]
    _check(sum(a.bytes for a in model.attention), MOST_BYTES, "bytes of queries and keys", last, title)
    operations = sum(_operations(a, reading) for a in model.attention)
    _check(operations, MOST_OPERATIONS, f"operations for the reading {reading}", last, title)


def _check_size(projection: Projection, title: str) -> None:
    tensor = projection.weight.tensor
    width = _width(projection)
    if projection.dim > LARGEST_DIM or projection.dim * width > LARGEST_HEAD:
        raise UnsupportedModelError(
            f"{title} has heads of {projection.dim} x {width} numbers in {tensor.name}, larger than any known "
            "model's: scoring holds a head in memory and refuses larger ones"
        )
    if latent := projection.latent:
        rows, columns = latent.rank + latent.shared, latent.down.tensor.shape[1]
        if rows * columns > LARGEST_LATENT:
            raise UnsupportedModelError(
                f"{title} has a latent of {rows} x {columns} numbers in {latent.down.tensor.name}, larger than any "
                f"known model's: scoring holds it in memory, and takes {LARGEST_LATENT} at most"
            )
        _check_scale(latent.down, title)
    _check_scale(projection.weight, title)


def _check_scale(weight: Weight, title: str) -> None:
    if weight.scale and weight.scale.info.elements > LARGEST_SCALE:
        raise UnsupportedModelError(
            f"{title} has {weight.scale.info.elements} numbers in {weight.scale.name}, more scales than any known "
            f"model: they are held in memory, {LARGEST_SCALE} at most"
        )


def _check(number: int, most: int, what: str, attention: Attention, title: str) -> None:
    if number > most:
        raise UnsupportedModelError(
            f"scoring {title} up to layer {attention.layer} would take {number:.3g} {what}, where {most:.3g} is "
            "the most: no known model is so large; restore it"
        )


def _width(projection: Projection) -> int:
    return projection.weight.tensor.shape[0 if projection.transposed else 1]


def _operations(attention: Attention, reading: Reading) -> int:
    """About; of `joint`, by the way that it takes where the quick one would lose digits."""
    heads, width = attention.heads, _width(attention.query)
    queries, keys = heads.queries * heads.dim, heads.keys * heads.dim
    latents = sum(
        2 * p.latent.rank * (p.latent.rank + p.latent.shared) * p.latent.down.tensor.shape[1]
        for p in attention.projections
        if p.latent
    )
    products = {"per-head": (queries + keys) * heads.dim, "joint": width * keys, "stored": 2 * queries * keys}
    return 2 * width * products[reading] + latents
