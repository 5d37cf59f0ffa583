"""Text becomes the tokens that a model reads."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

from gatenorm_stream.checkpoint.tensors import Checkpoint, Tensor
from gatenorm_stream.errors import CheckpointError, TextError
from gatenorm_stream.measuring.gguf_tokens import read_gguf_tokenizer
from gatenorm_stream.measuring.text import Text
from gatenorm_stream.measuring.tokenizer import Encode
from gatenorm_stream.measuring.tokenizer_json import read_tokenizer_json
from gatenorm_stream.sources.source import Kind

FEWEST = 16
"""Tokens of each part; fewer tell nothing."""
CHARACTERS = 32
"""Of a token, generously: so much text is looked at for each one that is asked for, more only if need be."""
EMBEDDINGS = ("token_embd", "embed_tokens", "wte", "embed_in", "word_embeddings", "tok_embeddings")
"""The last part of the embedding matrix's name, in GGUF and in the families' checkpoints."""


def encode(checkpoint: Checkpoint, text: str) -> list[int]:
    """The ids of `text` without special tokens, but for the BOS in front where the tokenizer puts one there.

    Those of llama.cpp for GGUF and of transformers for safetensors, except that a control token which stands in the
    text is text. Raises CheckpointError if the tokenizer is damaged or belongs to another model,
    UnsupportedModelError if it is of a kind that is not known.
    """
    with _tokenizer(checkpoint) as tokenizer:
        ids = tokenizer(text)
    _check(checkpoint, ids)
    return ids


def encode_parts(checkpoint: Checkpoint, text: Text, count: int) -> tuple[list[int], list[int]]:
    """The first `count` tokens of each part of `text`: to choose on, to judge on.

    Raises TextError if there are not so many, or `count` is below FEWEST; and as `encode` does.
    """
    if count < FEWEST:
        raise TextError(f"{count} tokens are too few to measure on; take {FEWEST} or more")
    with _tokenizer(checkpoint) as tokenizer:
        choosing, judging = (_first(tokenizer, part, count) for part in (text.choosing, text.judging))
    if (shorter := min(len(choosing), len(judging))) < count:
        advice = (
            f"take --tokens {shorter} or fewer, or a longer text" if shorter >= FEWEST else "give a longer text"
        )
        raise TextError(
            f"{text.name} has {shorter} tokens in one of its halves, and {count} are asked for (one half is to "
            f"choose on, one to judge on): {advice}"
        )
    _check(checkpoint, choosing + judging)
    return choosing, judging


def _tokenizer(checkpoint: Checkpoint) -> AbstractContextManager[Encode]:
    if checkpoint.kind is Kind.GGUF:
        return nullcontext(read_gguf_tokenizer(checkpoint))
    return read_tokenizer_json(checkpoint.source)


def _first(tokenizer: Encode, text: str, count: int) -> list[int]:
    """At most `count` tokens of the beginning; of a long text only as much is cut as that takes."""
    size = CHARACTERS * count
    while True:
        ids = tokenizer(text[:size])
        if len(ids) > 2 * count or size >= len(text):
            return ids[:count]
        size *= 4


def _check(checkpoint: Checkpoint, ids: list[int]) -> None:
    """Raises CheckpointError if an id has no row in the embedding matrix."""
    matrix = _embedding(checkpoint)
    if matrix and ids and max(ids) >= matrix.shape[0]:
        raise CheckpointError(
            f"the tokenizer of {checkpoint.source.title} gives the token {max(ids)}, but {matrix.name} has only "
            f"{matrix.shape[0]} rows; it belongs to another model, restore it"
        )


def _embedding(checkpoint: Checkpoint) -> Tensor | None:
    """None if it has none under a known name. That of a multimodal model's text stands under the longer name."""
    found = (t for n, t in checkpoint.tensors.items() if n.endswith(".weight") and len(t.shape) == 2)
    return next((t for t in found if t.name.split(".")[-2] in EMBEDDINGS), None)
