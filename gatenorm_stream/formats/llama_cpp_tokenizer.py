"""What llama.cpp's converter demands of the tokenizer beside a DeciLM checkpoint.

It takes a vocabulary of exactly 128256 entries as Llama 3's byte-level BPE, and anything else only as a BPE with
byte fallback whose decoder is a sequence (Llama 2, TinyLlama, Mistral 7B); to the tokens of the latter it gives one
and the same score, so that llama.cpp cuts text into other tokens than the model was trained on. llama.cpp,
conversion/deci.py and gguf/vocab.py (LlamaHfVocab.get_token_score).
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from gatenorm_stream.checkpoint.safetensors import json_object
from gatenorm_stream.errors import CheckpointError, HubError
from gatenorm_stream.families.model import Model
from gatenorm_stream.formats.edit import Limits, Obstacle
from gatenorm_stream.formats.tokenizer import QWEN_2, class_in_output
from gatenorm_stream.sources.source import Source

LLAMA_3_VOCABULARY = 128256
CAUTION = (
    "llama.cpp cuts text into other tokens (its converter loses the merge order): the output's card has the fix"
)


def tokenizer_limits(model: Model) -> Limits:
    """An obstacle if the converter refuses this model's tokenizer, a caution if it takes and spoils it."""
    checkpoint = model.checkpoint
    if checkpoint.config.get("vocab_size") == LLAMA_3_VOCABULARY:
        return Limits()
    reason = _refusal(checkpoint.source)
    if reason is None and class_in_output(model) == QWEN_2:
        reason = f"its converter reads it as transformers does, by {QWEN_2}, which is for another kind"
    if reason:
        return Limits((Obstacle(frozenset({"llama.cpp"}), "tokenizer.json", reason, notice=True),))
    return Limits(cautions=(CAUTION,))


@lru_cache(maxsize=1)  # plan and card ask alike, and a tokenizer.json may have many megabytes
def _refusal(source: Source) -> str | None:
    tokenizer = _tokenizer(source)
    if tokenizer is None:
        return "its converter needs one for this format"
    model, decoder = tokenizer.get("model"), tokenizer.get("decoder")
    if not isinstance(model, dict) or model.get("type") != "BPE" or not model.get("byte_fallback"):
        return "its converter takes only BPE with byte fallback for this format"
    if not isinstance(decoder, dict) or decoder.get("type") != "Sequence":
        return "its converter takes only Llama's form of decoder for this format"
    return None


def _tokenizer(source: Source) -> dict[str, Any] | None:
    try:
        return json_object(source, "tokenizer.json")
    except HubError:
        raise
    except CheckpointError:
        return None
