"""The way to the engine that needs the extra `[measure]`."""

from __future__ import annotations

import os

from gatenorm_stream.errors import UnsupportedModelError
from gatenorm_stream.families.model import Model
from gatenorm_stream.measuring.decoder import Decoder
from gatenorm_stream.version import install


def decode_with_transformers(model: Model, threads: int | None = None) -> Decoder:
    """Runs any family that transformers has a class for, in float32 on the processor.

    torch computes on `threads`, in the whole process; None leaves it as it is, which in the command is one, since
    that sets OMP_NUM_THREADS.

    Raises UnsupportedModelError if torch and transformers are not installed, and as `TransformersDecoder` does.
    """
    os.environ.setdefault("USE_HUB_KERNELS", "NO")  # transformers would fetch and run compiled code
    try:
        import torch

        from gatenorm_stream.measuring.transformers_decoder import TransformersDecoder
    except ImportError as error:
        raise UnsupportedModelError(
            f"measuring {model.family.name} needs torch and transformers ({error}): {install('measure')}"
        ) from error
    if threads is not None:
        torch.set_num_threads(threads)
    return TransformersDecoder(model)
