"""What llama.cpp's converter demands of the tokenizer beside a DeciLM checkpoint.

It takes a vocabulary of exactly 128256 entries as Llama 3's byte-level BPE, and anything else only as a BPE with
byte fallback whose decoder is a sequence (Llama 2, TinyLlama, Mistral 7B); to the tokens of the latter it gives one
and the same score, so that llama.cpp cuts text into other tokens than the model was trained on. llama.cpp,
conversion/deci.py and gguf/vocab.py (LlamaHfVocab.get_token_score).
"""

from __future__ import annotations

import json
from typing import Any

from gatenorm_stream.checkpoint.open import MAX_JSON_BYTES, Checkpoint
from gatenorm_stream.checkpoint.ranges import ByteRange
from gatenorm_stream.errors import CheckpointError
from gatenorm_stream.formats.edit import Obstacle

LLAMA_3_VOCABULARY = 128256


def tokenizer_obstacle(checkpoint: Checkpoint) -> Obstacle | None:
    """None if the converter takes this checkpoint's tokenizer."""
    if checkpoint.config.get("vocab_size") == LLAMA_3_VOCABULARY:
        return None
    reason = _refusal(checkpoint)
    return Obstacle(frozenset({"llama.cpp"}), "tokenizer.json", reason, notice=True) if reason else None


def tokenizer_caution(checkpoint: Checkpoint) -> str | None:
    """None if llama.cpp cuts text as the model's own tokenizer does, or the converter refuses it anyway."""
    if checkpoint.config.get("vocab_size") == LLAMA_3_VOCABULARY or _refusal(checkpoint):
        return None
    return "llama.cpp cuts text into other tokens (its converter loses the merge order): docs/engines.md mends it"


def _refusal(checkpoint: Checkpoint) -> str | None:
    tokenizer = _tokenizer(checkpoint)
    if tokenizer is None:
        return "its converter needs one for this format"
    model, decoder = tokenizer.get("model"), tokenizer.get("decoder")
    if not isinstance(model, dict) or model.get("type") != "BPE" or not model.get("byte_fallback"):
        return "its converter takes only BPE with byte fallback for this format"
    if not isinstance(decoder, dict) or decoder.get("type") != "Sequence":
        return "its converter takes only Llama's form of decoder for this format"
    return None


def _tokenizer(checkpoint: Checkpoint) -> dict[str, Any] | None:
    try:
        file = checkpoint.source.open("tokenizer.json")
    except CheckpointError:
        return None
    if file.size > MAX_JSON_BYTES:
        return None
    try:
        found = json.loads(bytes(file.read(ByteRange(0, file.size))))
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None
