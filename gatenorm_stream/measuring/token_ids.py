"""Ids of tokens that a model has rows for."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from gatenorm_stream.errors import CheckpointError

REMEDY = "it has another model's tokenizer, restore it"


def check_embedded(ids: npt.NDArray[np.int64], known: int, title: str) -> None:
    """Raises CheckpointError for an id that is not among the `known` rows of the embedding."""
    if ids.size and not 0 <= ids.min() <= ids.max() < known:
        raise CheckpointError(f"{title} knows {known} tokens, but the text has token {ids.max()}; {REMEDY}")


def check_predicted(ids: npt.NDArray[np.int64], rows: int, head: str, title: str) -> None:
    """Raises CheckpointError for an id that is not among the `rows` of the matrix `head`."""
    if ids.size and ids.max() >= rows:
        raise CheckpointError(f"{head} in {title} has {rows} rows, but the text has token {ids.max()}; {REMEDY}")
