"""Small models with byte-level tokenizers of the three kinds that llama.cpp's DeciLM converter refuses."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from tests.engines import sources

VOCABULARY = 640
SHAPE = {**sources.SHAPE, "vocab_size": VOCABULARY, "bos_token_id": None, "eos_token_id": 0}

# How these tokenizers cut text into words, as their tokenizer.json say.
QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
TEKKEN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def _split(pattern: str) -> pre_tokenizers.PreTokenizer:
    words = pre_tokenizers.Split(Regex(pattern), "isolated")
    return pre_tokenizers.Sequence([words, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def _digits() -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )


@dataclass(frozen=True)
class Kind:
    """`name` is what llama.cpp calls the pre-tokenizer."""

    name: str
    words: Callable[[], pre_tokenizers.PreTokenizer]
    model: Callable[[], PreTrainedModel]


KINDS = (
    Kind("qwen2", lambda: _split(QWEN2), lambda: Qwen2ForCausalLM(Qwen2Config(**SHAPE))),
    Kind("smollm", _digits, lambda: LlamaForCausalLM(LlamaConfig(**SHAPE, tie_word_embeddings=True))),
    Kind("tekken", lambda: _split(TEKKEN), lambda: MistralForCausalLM(MistralConfig(**SHAPE, head_dim=48))),
)


def write(kind: Kind, path: Path, corpus: Path) -> Path:
    """The tokenizer is trained on the text of `corpus`."""
    torch.manual_seed(0)
    sources.write(kind.model, path, path)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer, tokenizer.decoder = kind.words(), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=["<|endoftext|>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train([str(corpus)], trainer)
    assert tokenizer.get_vocab_size() == VOCABULARY
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|endoftext|>", add_bos_token=False)
    fast.chat_template = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% endfor %}"
    fast.save_pretrained(path)
    return path
