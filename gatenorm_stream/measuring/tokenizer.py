"""What every tokenizer here is, and how the package `tokenizers` fails."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

from gatenorm_stream.errors import CheckpointError

Encode: TypeAlias = Callable[[str], list[int]]
LONGEST_REASON = 200


def encoded(tokenizer: Any, text: str) -> list[int]:
    """By a batch of one: only that leaves the interpreter to other threads, of which one ends the run at Ctrl-C."""
    return list(tokenizer.encode_batch([text], add_special_tokens=False)[0].ids)


@contextmanager
def refusing(where: str) -> Iterator[None]:
    """Raises CheckpointError, naming `where`, for what `tokenizers` raises: nothing narrower than Exception, and
    BaseException where its Rust code panics (a bad normalisation table, an endless regular expression).
    """
    try:
        yield
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        reason = shortened(str(error))
        raise CheckpointError(f"{where} is not a tokenizer that can be used ({reason}); restore it") from error


def shortened(reason: str) -> str:
    return " ".join(reason.split())[:LONGEST_REASON]
