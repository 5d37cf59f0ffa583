"""The merge order that llama.cpp's converter loses, put back where a GGUF file is written.

A vocabulary of the kind `llama` says by its scores what is merged first. Read from a tokenizer.json, the converter
gives every token the same one (gguf/vocab.py, LlamaHfVocab.get_token_score), and llama.cpp cuts text into other
tokens than the model was trained on. In these vocabularies, which SentencePiece's BPE made, the ids stand in merge
order, and SentencePiece's own scores are their negatives.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping

from gatenorm_stream.checkpoint.gguf_arrays import FLOAT32, START
from gatenorm_stream.checkpoint.gguf_metadata import ARRAY, Value

KIND, TOKENS, SCORES = (f"tokenizer.ggml.{name}" for name in ("model", "tokens", "scores"))
FLOAT_BYTES = 4
CAUTION = (
    "the source scores every token alike, so that llama.cpp cuts text into other tokens than the model was trained "
    "on; the output's scores are in the order of their ids, which mends that"
)


def with_merge_order(metadata: Mapping[str, Value]) -> dict[str, Value]:
    """The same, with a score for each token, its negative id, if all of them have one and the same."""
    if not has_lost_merge_order(metadata):
        return dict(metadata)
    raw = metadata[SCORES].raw
    count = (len(raw) - START) // FLOAT_BYTES
    ranked = struct.pack(f"<{count}f", *range(0, -count, -1))
    return {**metadata, SCORES: Value(ARRAY, raw[:START] + ranked)}


def has_lost_merge_order(config: Mapping[str, object]) -> bool:
    """Whether it is the metadata of a GGUF file whose tokens have one and the same score."""
    kind, scores = config.get(KIND), config.get(SCORES)
    if not isinstance(kind, Value) or not isinstance(scores, Value) or kind.read() != "llama":
        return False
    if scores.kind != ARRAY or scores.raw[:4] != struct.pack("<I", FLOAT32):
        return False
    numbers = memoryview(scores.raw)[START:]
    return len(numbers) > FLOAT_BYTES and numbers[FLOAT_BYTES:] == numbers[:-FLOAT_BYTES]


def merge_order_cautions(config: Mapping[str, object]) -> tuple[str, ...]:
    return (CAUTION,) if has_lost_merge_order(config) else ()


def is_mended(config: Mapping[str, object], source: Mapping[str, object]) -> bool:
    """Whether `config` is of a file that has the source's tokens, and the merge order that the source lost."""
    if config.get(TOKENS) != source.get(TOKENS) or not has_lost_merge_order(source):
        return False
    found = {key: value for key, value in source.items() if isinstance(value, Value)}
    return config.get(SCORES) == with_merge_order(found)[SCORES]
