"""How much memory a pass takes, from headers alone."""

from __future__ import annotations

from gatenorm_stream.errors import TextError, UnsupportedModelError
from gatenorm_stream.families.model import Model

MOST_BYTES = 2 << 30
ROWS = 8
"""A choice with constants is two rows of tokens, beside two of the unpruned model; each has what attention adds."""


def check_memory(model: Model, tokens: int, fewest: int) -> None:
    """Raises TextError if a pass over so many tokens takes more than MOST_BYTES; UnsupportedModelError if `fewest`
    do.
    """
    heads = (a.heads for a in model.attention)
    widest = 4 * max([ROWS * model.hidden, *(2 * (h.queries + h.keys) * h.dim for h in heads)])
    if widest * tokens <= MOST_BYTES:
        return
    title, fits = model.checkpoint.source.title, MOST_BYTES // widest
    found = f"{tokens} tokens of {title} take {widest * tokens / 1e9:.3g} GB at once, and at most"
    if fits < fewest:
        raise UnsupportedModelError(f"{found} {MOST_BYTES / 1e9:.3g} are taken; no model is so wide, restore it")
    raise TextError(f"{found} {MOST_BYTES / 1e9:.3g} are taken; take --tokens {fits} or fewer")
