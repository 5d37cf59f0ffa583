"""A tokenizer from a checkpoint's tokenizer.json, by the package `tokenizers` in a process of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from gatenorm_stream.checkpoint.safetensors import json_object
from gatenorm_stream.checkpoint.tensors import shown
from gatenorm_stream.errors import CheckpointError, HubError, UnsupportedModelError
from gatenorm_stream.measuring.tokenizer import Encode
from gatenorm_stream.measuring.tokenizer_process import tokenizer_process
from gatenorm_stream.sources.source import Source, read_whole

FAST, CONFIG, SENTENCEPIECE = "tokenizer.json", "tokenizer_config.json", "tokenizer.model"
MOST_BYTES = 1 << 26


@contextmanager
def read_tokenizer_json(source: Source) -> Iterator[Encode]:
    """Text becomes ids; a special token that stands in the text is text.

    In front stands what the tokenizer's post-processor puts there; where tokenizer_config.json tells add_bos_token,
    as it says: that is what transformers does. Raises UnsupportedModelError if there is no tokenizer.json,
    CheckpointError if it can't be read.
    """
    names = source.names()
    if FAST not in names:
        raise UnsupportedModelError(_missing(source.title, names))
    content, told = _content(source), _told_bos(source, names)
    with tokenizer_process(content, told, source.open(FAST).title) as (front, encode):
        begin = [id for id in front if id is not None]
        if len(begin) < len(front):
            raise CheckpointError(
                f"{source.title} has the BOS token {shown(told)}, which its {FAST} does not hold; restore it"
            )
        yield lambda text: begin + encode(text)


def _content(source: Source) -> bytes:
    file = source.open(FAST)
    if file.size > MOST_BYTES:
        raise CheckpointError(
            f"{file.title} is {file.size} bytes long, and at most {MOST_BYTES} are read; restore it"
        )
    return read_whole(file)


def _told_bos(source: Source, names: tuple[str, ...]) -> str | None:
    """What tokenizer_config.json says to put in front, "" for nothing; None if it does not tell."""
    if CONFIG not in names:
        return None
    try:
        config = json_object(source, CONFIG)
    except HubError:
        raise
    except CheckpointError:
        return None
    if "add_bos_token" not in config and "add_eos_token" not in config:
        return None
    token = config.get("bos_token")
    token = token.get("content") if isinstance(token, dict) else token
    return token if config.get("add_bos_token") is True and isinstance(token, str) else ""


def _missing(title: str, names: tuple[str, ...]) -> str:
    if SENTENCEPIECE in names:
        return (
            f"{title} has a {SENTENCEPIECE} but no {FAST}, and text is cut into tokens by the latter; make it by "
            "transformers: AutoTokenizer.from_pretrained(...).save_pretrained(...), and put it there"
        )
    return f"{title} has no {FAST}; put the tokenizer that belongs to this model there"
