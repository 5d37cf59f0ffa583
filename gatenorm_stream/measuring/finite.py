"""What is no number is refused where it comes out of a model: nothing is chosen or shown by it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from gatenorm_stream.errors import CheckpointError


def check_finite(numbers: npt.ArrayLike, what: str, title: str) -> None:
    """Raises CheckpointError, naming `what` of `title`, if one of them is inf or nan."""
    if not np.isfinite(numbers).all():
        raise CheckpointError(
            f"{what} of {title} is no number: its weights hold inf or nan, or what they give leaves the range of "
            "float32; restore the checkpoint"
        )
