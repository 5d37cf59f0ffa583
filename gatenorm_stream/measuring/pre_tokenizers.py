"""How byte-level BPE vocabularies cut text into words before they merge, by the names that GGUF files give.

The patterns stand in these models' tokenizer.json files; which name means which pattern: llama.cpp,
src/llama-vocab.cpp. Each pattern cuts what the one before it left; what it does not match stays a word by itself.
"""

from __future__ import annotations

from dataclasses import dataclass

GPT_2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_CONTRACTIONS = "'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD]"
_SPACES = r"\s*[\r\n]+|\s+(?!\S)|\s+"
LLAMA_3 = rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{_SPACES}"
QWEN_2 = LLAMA_3.replace("{1,3}", "")
SEED_CODER = rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}| ?[^\s\p{{L}}\p{{N}}\r\n]+|{_SPACES}"
_UPPER, _LOWER = r"((?=\p{L})[^a-z])", r"((?=\p{L})[^A-Z])"
TEKKEN = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*"
    rf"|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_SPACES}"
)
VIKING = r" ?[^(\s|.,!?…。，、।۔،)]+"


@dataclass(frozen=True)
class PreTokenizer:
    """`whole_words`: a word that is a token is not merged from its parts. `bos`: one is put in front by default."""

    patterns: tuple[str, ...]
    whole_words: bool = False
    bos: bool = False


_FORMS: dict[tuple[str, ...], PreTokenizer] = {
    ("default",): PreTokenizer((r"[\p{P}$+<=>^~|]+", GPT_2, r"\p{N}+", "[0-9][0-9][0-9]")),
    (
        "llama3",
        "llama-v3",
        "llama-bpe",
        "falcon3",
        "falcon-h1",
        "pixtral",
        "midm-2.0",
        "lfm2",
        "jina-v5-nano",
    ): PreTokenizer((LLAMA_3,), whole_words=True, bos=True),
    ("dbrx", "smaug-bpe"): PreTokenizer((LLAMA_3,)),
    (
        "qwen2",
        "deepseek-r1-qwen",
        "kormo",
        "f2llmv2",
        "megrez",
        "stablelm2",
        "hunyuan",
        "solar-open",
        "grok-2",
    ): PreTokenizer((QWEN_2,)),
    (
        "smollm",
        "starcoder",
        "refact",
        "command-r",
        "codeshell",
        "exaone",
        "minerva-7b",
        "mellum2",
    ): PreTokenizer((r"\p{N}", GPT_2)),
    (
        "gpt-2",
        "phi-2",
        "gigachat",
        "a.x-4.0",
        "mellum",
        "modern-bert",
        "exaone4",
        "mpt",
        "olmo",
        "jais",
        "trillion",
        "granite-docling",
    ): PreTokenizer((GPT_2,)),
    ("tekken",): PreTokenizer((TEKKEN,), whole_words=True, bos=True),
    ("seed-coder",): PreTokenizer((SEED_CODER,)),
    ("viking",): PreTokenizer((VIKING, r"\p{N}")),
    ("deepseek-coder",): PreTokenizer((r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", "[一-龥ࠀ-一가-\ud7ff]+", r"\p{N}")),
}

PRE_TOKENIZERS = {name: form for names, form in _FORMS.items() for name in names}
