"""A tokenizer from a GGUF file's own vocabulary, to the same tokens as llama.cpp's.

Metadata: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. What is taken where a key is missing is what
llama.cpp takes (src/llama-vocab.cpp).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from gatenorm_stream.checkpoint.gguf_arrays import read_numbers, read_strings
from gatenorm_stream.checkpoint.gguf_metadata import Value
from gatenorm_stream.checkpoint.tensors import Checkpoint, shown
from gatenorm_stream.errors import CheckpointError, UnsupportedModelError
from gatenorm_stream.measuring.merge_by_score import merge_by_score
from gatenorm_stream.measuring.pre_tokenizers import PRE_TOKENIZERS
from gatenorm_stream.measuring.tokenizer import Encode, encoded, refusing

KEYS = "tokenizer.ggml."
USER_DEFINED = 4
"""The type of a token that is found in text before anything else; one of control (3) never is."""
MOST_TOKENS, MOST_USER_DEFINED = 1 << 19, 1 << 14
"""Text is searched for each user-defined token by itself. The largest public vocabularies have 262,144 tokens, of
them some 6,000 such ones.
"""
LONGEST_BY_SCORE = 256
"""Characters of a token that merges by score: each character of a text is looked at as often. SentencePiece makes
them of 16 by default.
"""
SPACE = "▁"
DEFAULT_BOS = {"llama": 1, "gpt2": 11}


@dataclass(frozen=True)
class Vocabulary:
    """`ids` of tokens by their text; `whole`: user-defined ones, the longest first; with `bos` None none is put."""

    ids: Mapping[str, int]
    whole: tuple[str, ...]
    bos: int | None


def read_gguf_tokenizer(checkpoint: Checkpoint) -> Encode:
    """Byte-level BPE (gpt2) and SentencePiece's BPE (llama).

    Raises UnsupportedModelError for another kind or an unknown pre-tokenizer, CheckpointError if the vocabulary is
    missing or damaged.
    """
    title, metadata = checkpoint.source.title, checkpoint.config
    try:
        kind = _text(metadata, "model", "")
        if kind not in DEFAULT_BOS:
            raise UnsupportedModelError(
                f"{title} has a tokenizer of the kind {shown(kind)}; gpt2 and llama are read: give the safetensors "
                "form of this model, with its tokenizer.json"
            )
        return _byte_level(title, metadata) if kind == "gpt2" else _by_score(title, metadata)
    except ValueError as error:
        raise CheckpointError(
            f"{title} has no vocabulary that can be read ({error}); download or convert the file again"
        ) from error


def _byte_level(title: str, metadata: Mapping[str, Value]) -> Encode:
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers

    name = _text(metadata, "pre", "default")
    if name not in PRE_TOKENIZERS:
        raise UnsupportedModelError(
            f"{title} has the pre-tokenizer {shown(name)}, which is not known; give the safetensors form of this "
            "model, with its tokenizer.json"
        )
    form = PRE_TOKENIZERS[name]
    vocabulary = _vocabulary(metadata, "gpt2", form.bos)
    merges = [_merge(line) for line in dict.fromkeys(_strings(metadata, "merges"))]
    where = f"the vocabulary of {title}"
    with refusing(where):
        model = models.BPE(vocab=dict(vocabulary.ids), merges=merges, ignore_merges=form.whole_words)
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            *(pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in form.patterns),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )

    def encode(text: str, _: bool) -> list[int]:
        with refusing(where):
            return encoded(tokenizer, text)

    return _encode(vocabulary, encode)


def _by_score(title: str, metadata: Mapping[str, Value]) -> Encode:
    vocabulary = _vocabulary(metadata, "llama", True)
    ids, prefix = vocabulary.ids, _flag(metadata, "add_space_prefix", True)
    if (longest := max(map(len, ids), default=0)) > LONGEST_BY_SCORE:
        raise ValueError(f"a token of {longest} characters stands in it, and at most {LONGEST_BY_SCORE} are taken")
    scores: Sequence[float] = [0.0] * len(ids)
    if f"{KEYS}scores" in metadata:
        scores = _numbers(metadata, "scores", len(ids))
        if any(map(math.isnan, scores)):
            raise ValueError(f"{KEYS}scores holds nan, by which nothing merges before anything")

    def encode(text: str, first: bool) -> list[int]:
        text = (SPACE if prefix and first else "") + text.replace(" ", SPACE)
        return [id for piece in merge_by_score(text, ids, scores) for id in _piece(title, piece, ids)]

    return _encode(vocabulary, encode)


def _piece(title: str, piece: str, ids: Mapping[str, int]) -> Iterator[int]:
    """Its id, or those of its bytes."""
    if piece in ids:
        yield ids[piece]
        return
    for byte in piece.encode("utf-8"):
        id = ids.get(f"<0x{byte:02X}>", ids.get(chr(byte)) if byte < 128 else None)
        if id is None:
            raise CheckpointError(
                f"{title} has no token for {shown(piece)}, nor for its byte {byte:#04x}; give a text without it, "
                "or convert the file again"
            )
        yield id


def _encode(vocabulary: Vocabulary, encode: Callable[[str, bool], list[int]]) -> Encode:
    """`encode` is told whether its text begins the whole, or follows a user-defined token."""

    def whole(text: str) -> list[int]:
        found = [] if vocabulary.bos is None else [vocabulary.bos]
        first = True
        for part, is_token in cut_at(text, vocabulary.whole):
            found += [vocabulary.ids[part]] if is_token else encode(part, first)
            first = is_token
        return found

    return whole


def cut_at(text: str, tokens: Sequence[str]) -> list[tuple[str, bool]]:
    """The parts of `text` in their order, each with whether it is one of `tokens`; earlier tokens are looked for
    first, everywhere.
    """
    parts = [(text, False)] if text else []
    for token in tokens:
        if token in text:
            parts = [new for part in parts for new in ([part] if part[1] else _cut(part[0], token))]
    return parts


def _cut(text: str, token: str) -> Iterator[tuple[str, bool]]:
    for number, part in enumerate(text.split(token)):
        if number:
            yield token, True
        if part:
            yield part, False


def _vocabulary(metadata: Mapping[str, Value], kind: str, bos: bool) -> Vocabulary:
    tokens = [token or f"[EMPTY_{id}]" for id, token in enumerate(_strings(metadata, "tokens"))]
    if len(tokens) > MOST_TOKENS:
        raise ValueError(f"it has {len(tokens)} tokens, and at most {MOST_TOKENS} are taken")
    ids = {token: id for id, token in enumerate(tokens)}
    if len(ids) != len(tokens):
        raise ValueError("a token stands twice in it")
    types: Sequence[float] = ()
    if f"{KEYS}token_type" in metadata:
        types = _numbers(metadata, "token_type", len(tokens))
    whole = {token for token, type in zip(tokens, types, strict=False) if type == USER_DEFINED}
    if len(whole) > MOST_USER_DEFINED:
        raise ValueError(f"{len(whole)} of its tokens are user-defined, and at most {MOST_USER_DEFINED} are taken")
    longest_first = sorted(whole, key=lambda token: -len(token.encode("utf-8")))
    first: int | None = None
    if _flag(metadata, "add_bos_token", bos):
        named = metadata.get(f"{KEYS}bos_token_id")
        first = named.read() if named else None
        if type(first) is not int or not 0 <= first < len(tokens):
            first = DEFAULT_BOS[kind]
        if first >= len(tokens):
            raise ValueError("it puts a BOS token in front, but does not say which")
    return Vocabulary(ids, tuple(longest_first), first)


def _merge(line: str) -> tuple[str, str]:
    """At its first space that does not begin it: as llama.cpp takes it apart."""
    at = line.find(" ", 1)
    if at < 0:
        raise ValueError(f"the merge {shown(line)} has no second part")
    return line[:at], line[at + 1 :]


def _strings(metadata: Mapping[str, Value], key: str) -> list[str]:
    if f"{KEYS}{key}" not in metadata:
        raise ValueError(f"{KEYS}{key} is missing")
    try:
        return read_strings(metadata[f"{KEYS}{key}"])
    except ValueError as error:
        raise ValueError(f"{KEYS}{key} is {error}") from error


def _numbers(metadata: Mapping[str, Value], key: str, count: int) -> Sequence[float]:
    try:
        numbers = read_numbers(metadata[f"{KEYS}{key}"])
    except ValueError as error:
        raise ValueError(f"{KEYS}{key} is {error}") from error
    if len(numbers) < count:
        raise ValueError(f"{KEYS}{key} has {len(numbers)} entries for {count} tokens")
    return numbers


def _text(metadata: Mapping[str, Value], key: str, default: str) -> str:
    """`default` if it is missing or empty."""
    value = metadata.get(f"{KEYS}{key}")
    found = value.read() if value else default
    if not isinstance(found, str):
        raise ValueError(f"{KEYS}{key} is {shown(found)}")
    return found or default


def _flag(metadata: Mapping[str, Value], key: str, default: bool) -> bool:
    value = metadata.get(f"{KEYS}{key}")
    found = value.read() if value else default
    if not isinstance(found, bool):
        raise ValueError(f"{KEYS}{key} is {shown(found)}, neither true nor false")
    return found
