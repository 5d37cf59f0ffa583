"""The tokens that a model is run on."""

from __future__ import annotations

from dataclasses import dataclass
from os import PathLike

import numpy as np

from gatenorm_stream.errors import TextError
from gatenorm_stream.families.model import Model
from gatenorm_stream.families.positions import context_length
from gatenorm_stream.measuring.memory import check_memory
from gatenorm_stream.measuring.study import Texts
from gatenorm_stream.measuring.text import built_in_text, read_text
from gatenorm_stream.measuring.tokens import FEWEST, encode_parts


@dataclass(frozen=True)
class Sample:
    """A text by its name and digest (BLAKE3), and its tokens."""

    name: str
    digest: str
    texts: Texts


def read_sample(model: Model, text: str | PathLike[str] | None, tokens: int) -> Sample:
    """So many tokens to choose on and as many to judge on, of the file `text` or the built-in one.

    Raises TextError, also for more tokens than the model reads at once, or than a pass holds; CheckpointError or
    UnsupportedModelError for the tokenizer.
    """
    checkpoint, context = model.checkpoint, context_length(model)
    if context and tokens > context:
        raise TextError(
            f"{checkpoint.source.title} reads at most {context} tokens at once, and {tokens} are asked for; take "
            f"--tokens {context} or fewer"
        )
    check_memory(model, tokens, FEWEST)
    read = built_in_text() if text is None else read_text(text)
    choosing, judging = (np.array(part, np.int64) for part in encode_parts(checkpoint, read, tokens))
    return Sample(read.name, read.digest, Texts(choosing, judging))
