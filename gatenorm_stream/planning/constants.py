"""The constants of a plan as text, and read again from a stranger's."""

from __future__ import annotations

import binascii
from base64 import b64decode, b64encode
from typing import Any

from gatenorm_stream.formats.edit import Constants

FLOAT_BYTES = 4


def constants_as_text(constants: Constants) -> dict[str, str]:
    """By layer, in order: the bytes of each vector in base64."""
    return {str(layer): b64encode(constants[layer]).decode("ascii") for layer in sorted(constants)}


def read_constants(given: Any, dropped: tuple[int, ...]) -> Constants | None:
    """What `constants_as_text` wrote for exactly the layers `dropped`; None if `given` is anything else."""
    if not isinstance(given, dict) or given.keys() != {str(layer) for layer in dropped}:
        return None
    vectors = {layer: vector for layer in dropped if (vector := _vector(given[str(layer)]))}
    whole = len(vectors) == len(dropped) and len(set(map(len, vectors.values()))) == 1
    return vectors if whole else None


def _vector(text: Any) -> bytes | None:
    """None unless it is the one spelling of at least one float32, all finite."""
    if not isinstance(text, str):
        return None
    try:
        vector = b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
    if not vector or len(vector) % FLOAT_BYTES or b64encode(vector).decode("ascii") != text:
        return None
    import numpy as np

    return vector if np.isfinite(np.frombuffer(vector, "<f4")).all() else None
