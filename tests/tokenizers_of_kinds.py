"""Small tokenizers of the kinds that published models have, trained on the built-in text, and a text for them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from gatenorm_stream.measuring.text import built_in_text

SIZE = 400
TEXT = (
    "Hello,  world!  In 2023 it's 12,345.678 — naïve?\n\n   indented\tx_1**2 </s> b a <s>x<|endoftext|>!  "
    "Der Straße, Ещё один день. 春天到了。 صباح हिन्दी 한국어 ไทย e\u0301 👩\u200d🚀 ½ trailing   "
)
SPECIAL = ["<unk>", "<s>", "</s>", "<|endoftext|>"]
NAMED = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
SPLIT = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def pieces(prepend: bool = True, bos: bool = False) -> Tokenizer:
    """SentencePiece's BPE as Llama 2 and Mistral have it, or without the first space as Gemma."""
    made = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    steps = [normalizers.Prepend("▁")] if prepend else []
    made.normalizer = normalizers.Sequence([*steps, normalizers.Replace(" ", "▁")])
    made.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    if bos:
        made.post_processor = processors.TemplateProcessing("<s> $A", "<s> $A $B", [("<s>", 1)])
    return _trained(made, [f"<0x{byte:02X}>" for byte in range(256)])


def byte_level(words: str = "digits") -> Tokenizer:
    """Digits one by one (Granite, OLMo 2), split by a pattern and composed (Qwen 2), or as GPT-2 does."""
    made = Tokenizer(models.BPE())
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=words != "pattern")
    first: dict[str, list[pre_tokenizers.PreTokenizer]] = {
        "digits": [pre_tokenizers.Digits(individual_digits=True)],
        "pattern": [pre_tokenizers.Split(Regex(SPLIT), "isolated")],
        "gpt2": [],
    }
    made.pre_tokenizer = pre_tokenizers.Sequence([*first[words], level])
    made.normalizer = normalizers.NFC() if words == "pattern" else None
    made.decoder = decoders.ByteLevel()
    return _trained(made, [], pre_tokenizers.ByteLevel.alphabet())


KINDS = {
    "pieces": pieces,
    "pieces with <s>": lambda: pieces(bos=True),
    "pieces, no space before": lambda: pieces(prepend=False),
    "digits": byte_level,
    "pattern": lambda: byte_level("pattern"),
    "gpt2": lambda: byte_level("gpt2"),
}


def write_tokenizer(folder: Path, tokenizer: Tokenizer, declared: str | None, **said: Any) -> None:
    """Its tokenizer.json and tokenizer_config.json, whose class is `declared`."""
    tokenizer.save(str(folder / "tokenizer.json"))
    told = {**NAMED, **said, **({"tokenizer_class": declared} if declared else {})}
    (folder / "tokenizer_config.json").write_text(json.dumps(told))


def _trained(tokenizer: Tokenizer, reserved: list[str], alphabet: list[str] | None = None) -> Tokenizer:
    trainer = trainers.BpeTrainer(
        vocab_size=SIZE + len(reserved),
        special_tokens=[*SPECIAL, *reserved],
        initial_alphabet=alphabet or [],
        show_progress=False,
    )
    tokenizer.train_from_iterator(built_in_text().choosing.split("\n\n")[:40], trainer)
    return tokenizer
