"""Which two projections of each attention sublayer a reading multiplies."""

from __future__ import annotations

from gatenorm_stream.errors import UnsupportedModelError
from gatenorm_stream.families.model import Model, value_output
from gatenorm_stream.families.projections import Pair
from gatenorm_stream.gguf.model import gguf_value_output
from gatenorm_stream.gguf.open import GgufCheckpoint
from gatenorm_stream.readings import EXPERIMENTAL, Reading


def pairs(model: Model, reading: Reading) -> tuple[Pair, ...]:
    """Queries and keys, or outputs and values. Only headers are read.

    Raises UnsupportedModelError for the reading `stored` of a model that stores no key projection (MLA), and it or
    CheckpointError if outputs or values are not there or in a form that is not read.
    """
    if reading == EXPERIMENTAL:
        return (gguf_value_output if isinstance(model.checkpoint, GgufCheckpoint) else value_output)(model)
    if reading == "stored" and model.family.latent:
        raise UnsupportedModelError(
            f"{model.checkpoint.source.title} computes its keys from a latent, so there is no stored key "
            "projection to read; use --reading per-head or joint"
        )
    return tuple(Pair(a.layer, a.heads, a.query, a.key) for a in model.attention)
