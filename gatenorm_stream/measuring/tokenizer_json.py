"""A tokenizer from a checkpoint's tokenizer.json, by the package `tokenizers`."""

from __future__ import annotations

from typing import Any

from gatenorm_stream.checkpoint.safetensors import json_object
from gatenorm_stream.errors import CheckpointError, HubError, UnsupportedModelError
from gatenorm_stream.measuring.tokenizer import Encode, encoded, refusing
from gatenorm_stream.sources.source import Source, read_whole

FAST, CONFIG, SENTENCEPIECE = "tokenizer.json", "tokenizer_config.json", "tokenizer.model"
MOST_BYTES = 1 << 26
MOST_VALUES = 1 << 22
"""Commas and opening brackets; with the size they bound the memory that a parsed file takes. A vocabulary of
262,000 tokens with 515,000 merges has 1.8 million.
"""


def read_tokenizer_json(source: Source) -> Encode:
    """Text becomes ids; a special token that stands in the text is text.

    In front stands what the tokenizer's post-processor puts there; where tokenizer_config.json tells add_bos_token,
    as it says: that is what transformers does. Raises UnsupportedModelError if there is no tokenizer.json,
    CheckpointError if it can't be read.
    """
    names = source.names()
    if FAST not in names:
        raise UnsupportedModelError(_missing(source.title, names))
    tokenizer = _load(source)

    where = source.open(FAST).title

    def encode(text: str, special: bool = False) -> Any:
        with refusing(where):
            return encoded(tokenizer, text, special=special)

    told = _told_bos(source, names)
    front = _front(encode("a", special=True)) if told is None else _bos(tokenizer, source, told)
    return lambda text: front + encode(text).ids


def _front(encoding: Any) -> list[int]:
    """What was put before the text."""
    added = list(encoding.special_tokens_mask)
    return list(encoding.ids[: added.index(0)]) if 0 in added else []


def _load(source: Source) -> Any:
    from tokenizers import Tokenizer

    file = source.open(FAST)
    if file.size > MOST_BYTES:
        raise CheckpointError(
            f"{file.title} is {file.size} bytes long, and at most {MOST_BYTES} are read; restore it"
        )
    text = read_whole(file)
    if text.count(b",") + text.count(b"[") + text.count(b"{") > MOST_VALUES:
        raise CheckpointError(f"{file.title} holds more than {MOST_VALUES} values; restore it")
    with refusing(file.title):
        tokenizer = Tokenizer.from_buffer(text)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True
    return tokenizer


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


def _bos(tokenizer: Any, source: Source, token: str) -> list[int]:
    if not token:
        return []
    id = tokenizer.token_to_id(token)
    if id is None:
        raise CheckpointError(
            f"{source.title} has the BOS token {token!r}, which its {FAST} does not hold; restore it"
        )
    return [id]


def _missing(title: str, names: tuple[str, ...]) -> str:
    if SENTENCEPIECE in names:
        return (
            f"{title} has a {SENTENCEPIECE} but no {FAST}, and text is cut into tokens by the latter; make it by "
            "transformers: AutoTokenizer.from_pretrained(...).save_pretrained(...), and put it there"
        )
    return f"{title} has no {FAST}; put the tokenizer that belongs to this model there"
