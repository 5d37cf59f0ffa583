"""The way to the engine that needs the extra `[measure]`."""

from __future__ import annotations

import os

from gatenorm_stream.errors import UnsupportedModelError
from gatenorm_stream.families.model import Model
from gatenorm_stream.measuring.decoder import Decoder


def decode_with_transformers(model: Model) -> Decoder:
    """Runs any family that transformers has a class for, in float32 on the processor.

    Raises UnsupportedModelError if torch and transformers are not installed, and as `TransformersDecoder` does.
    """
    os.environ.setdefault("USE_HUB_KERNELS", "NO")  # transformers would fetch and run compiled code
    try:
        from gatenorm_stream.measuring.transformers_decoder import TransformersDecoder
    except ImportError as error:
        raise UnsupportedModelError(
            f"measuring {model.family.name} needs torch and transformers ({error}): "
            "pip install 'gatenorm-stream[measure]'"
        ) from error
    return TransformersDecoder(model)
