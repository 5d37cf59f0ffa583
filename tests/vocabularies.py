"""Small GGUF models with a vocabulary of one's choice, written by the `gguf` package; llama.cpp loads them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from gguf import GGUFWriter

from gatenorm_stream.measuring.text import built_in_text

HIDDEN = 32
NORMAL, CONTROL, USER_DEFINED, BYTE = 1, 3, 4, 6
SAMPLE = (
    "Hello,  world!\n\nIt's 1803 — naïve or NOT?  we'LL see:\t12,345.678 and 1234567890 x2y3z\r\n"
    "   indented\n    def f(x_1):\n        return {'a': [1, 2.5e-3], \"b\": x_1**2}  # ok!\n\n\n"
    'if (a<=b && c!=0) { s += "%d\\n"; }\nDer Straße, «déjà vu», ¿qué? Ещё один день. 春天到了，孩子们放风筝。'
    "駅前の喫茶店。 صباح الخير يا عالم हिन्दी में नमस्ते 한국어 문장 ไทย\u00a0NBSP\u3000wide "
    "e\u0301 \u200dzwj 👩\u200d🚀🎉 ½ ² Ⅷ ①  trailing   "
)
"""Spaces, digits, newlines, code, several scripts, emoji, combining marks."""
WHOLE_WORDS = ("ĠStraÃŁe", "Ġtrailing")
TEXTS = (SAMPLE, built_in_text().choosing, "", " ", "\n", "a", "  a", "<s>hello</s> <0x41>")


def write_vocabulary(
    path: Path,
    tokens: Sequence[str | bytes],
    model: str = "gpt2",
    *,
    pre: str | None = None,
    merges: Sequence[str] | None = None,
    scores: Sequence[float] | None = None,
    types: Sequence[int] | None = None,
    bos: int | None = None,
    add_bos: bool | None = None,
    prefix: bool | None = None,
    rows: int | None = None,
    layers: int = 1,
) -> Path:
    """A Llama with random weights, of `rows` embeddings or one a token. What is None is left out of metadata."""
    writer = GGUFWriter(path, "llama")
    writer.add_block_count(layers)
    writer.add_context_length(128)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(HIDDEN)
    writer.add_head_count(1)
    writer.add_head_count_kv(1)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tokenizer_model(model)
    writer.add_token_list(tokens)  # type: ignore[arg-type]
    if pre is not None:
        writer.add_tokenizer_pre(pre)
    if merges is not None:
        writer.add_token_merges(merges)
    if scores is not None:
        writer.add_token_scores(scores)
    if types is not None:
        writer.add_token_types(types)
    if bos is not None:
        writer.add_bos_token_id(bos)
    if add_bos is not None:
        writer.add_add_bos_token(add_bos)
    if prefix is not None:
        writer.add_add_space_prefix(prefix)
    rng = np.random.default_rng(0)
    shapes = {"token_embd.weight": (rows or len(tokens), HIDDEN), "output_norm.weight": (HIDDEN,)}
    square = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
    for n in range(layers):
        shapes |= {f"blk.{n}.{name}.weight": (HIDDEN, HIDDEN) for name in square}
        shapes |= {f"blk.{n}.{name}.weight": (HIDDEN,) for name in ("attn_norm", "ffn_norm")}
    for name, shape in shapes.items():
        writer.add_tensor(name, rng.normal(0, 0.1, shape).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def byte_level(size: int = 2000) -> tuple[list[str], list[str]]:
    """Tokens and merges of a byte-level BPE that was trained across spaces, digits and lines: cut otherwise, text
    merges otherwise. Two words are tokens that no merge makes.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=size, initial_alphabet=alphabet, show_progress=False, max_token_length=12
    )
    numbers = (f"{n} {n * n},{n}.{n}!\n\n" for n in range(1500, 1600))
    tokenizer.train_from_iterator([SAMPLE, SAMPLE, *built_in_text().choosing.split("\n\n"), *numbers], trainer)
    model = json.loads(tokenizer.to_str())["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].get)
    return [*tokens, *WHOLE_WORDS], [" ".join(pair) for pair in model["merges"]]


def sentencepiece(seed: int = 0) -> tuple[list[str], list[float], list[int]]:
    """Tokens, scores and types as SentencePiece's BPE has them: control, bytes, then words of random scores."""
    words = sorted({w[:n] for w in SAMPLE.replace(" ", " ▁").split(" ") for n in range(2, 8) if len(w) >= n})
    pairs = {SAMPLE.replace(" ", "▁")[i : i + n] for i in range(len(SAMPLE)) for n in (2, 3, 4)}
    plain = sorted({*words, *pairs, "▁", *(c for c in SAMPLE if c.isalpha() and ord(c) < 0x500)} - {""})
    rng = np.random.default_rng(seed)
    scores = np.round(rng.normal(-5, 2, len(plain)), 1).tolist()  # rounded: some are equal
    special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    types = [2, CONTROL, CONTROL, *[BYTE] * 256, *[NORMAL] * len(plain)]
    return [*special, *plain], [0.0] * len(special) + scores, types
