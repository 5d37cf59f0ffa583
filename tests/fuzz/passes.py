"""A model that is run on a text: hostile configs, weights, tokenizers, vocabularies and texts.

What a pass finds is numbers, or the run is refused: nothing is chosen by nan.
"""

from __future__ import annotations

import json
import math
import random
import string
from functools import partial
from pathlib import Path
from typing import Any

import gatenorm_stream
from gatenorm_stream.measuring.measured_output import MeasuredOutput
from gatenorm_stream.measuring.measurement import Measurement
from tests.checkpoints import llama_config, llama_shapes, random_tensors, write_checkpoint
from tests.fuzz.target import Target, number
from tests.fuzz.watch import FindingError, Watch
from tests.vocabularies import SAMPLE, sentencepiece, write_vocabulary
from tests.vocabularies import byte_level as byte_level_vocabulary

LAYERS, TOKENS = 3, 16
NUMBERS: tuple[Any, ...] = (
    *(0, 1, -1, 2, 10**9, 10**30, 0.0, -0.5, 1e-300, 5e-324, 1e300, 1.0000000000000002, math.nan, math.inf),
    *("8", "", None, True, [], {}, [1], {"factor": 2}),
)
KEYS = (
    *("rms_norm_eps", "rope_theta", "head_dim", "sliding_window", "vocab_size", "max_position_embeddings"),
    *("hidden_size", "intermediate_size", "num_key_value_heads", "tie_word_embeddings", "rope_scaling"),
    "hidden_act",
)
ROPE = (
    *("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings", "beta_fast"),
    *("beta_slow", "attention_factor", "rope_theta", "mscale"),
)
WEIGHTS = (b"\x80\x7f", b"\x80\xff", b"\xc0\x7f", b"\x7f\x7f", b"\x01\x00", b"\x00\x80")
"""Inf, -inf, nan, the largest, the smallest and -0 in bfloat16."""
BYTES = (b"\xff" * 8, b"\0" * 8, b"\0\0\0\x80", b"\0\0\xc0\x7f", b"\0\0\x80\x7f", b"\x01", b"\x08", b"e")
TEXTS = (SAMPLE * 8, "a" * 3000, "\n" * 3000, "\u202e\x1b[2J" * 900, "e\u0301" * 1500, "a b" * 9, "\0" * 99, "")
SPLIT = {"type": "Split", "pattern": {"Regex": r"(\w+\s?)+$"}, "behavior": "Isolated", "invert": False}
REPLACE = {"type": "Replace", "pattern": {"String": "e"}, "content": "e" * 50}
PARTS: tuple[Any, ...] = (
    *(None, True, -1, 1 << 40, 1e300, "", "a", "(", [], {}, [[]], {"type": "BPE"}, SPLIT, REPLACE),
    {"type": "Sequence", "normalizers": [REPLACE] * 6},
    {"type": "Sequence", "pretokenizers": [SPLIT, {"type": "ByteLevel"}]},
)


class Passes:
    def __init__(self, folder: Path, watch: Watch) -> None:
        self.watch = watch
        root = self._root = folder / "passes"
        self._text = root / "text"
        self._model = write_checkpoint(
            root / "model", random_tensors(llama_shapes(LAYERS)), llama_config(num_hidden_layers=LAYERS), shards=1
        )
        self._weights = self._model / "model.safetensors"
        self._stored = self._weights.read_bytes()
        self._tokenizer = _tokenizer()
        self._ggufs = [self._gguf("gpt2"), self._gguf("llama")]
        self._path = root / "spoilt.gguf"
        self._text.write_text(SAMPLE * 8, encoding="utf-8")
        (self._model / "tokenizer.json").write_text(json.dumps(self._tokenizer))
        self._path.write_bytes(self._ggufs[0])
        for how in range(3):  # imports what is imported late
            self._run(self._model, how)
            self._run(self._path, how)

    def targets(self) -> tuple[Target, ...]:
        return (Target("passes", 0.001, self.passed, number),)

    def passed(self, data: bytes) -> None:
        rng = random.Random(data)
        self._text.write_text(rng.choice(TEXTS[:1] * 20 + TEXTS), encoding="utf-8")
        model = self._spoilt_gguf(rng) if rng.randrange(2) else self._spoilt_checkpoint(rng)
        self.watch.permit(self._root)
        self.watch.case(partial(self._run, model, rng.randrange(3)))

    def _run(self, model: Path, how: int) -> None:
        if how == 0:
            numbers = [
                s.score for s in gatenorm_stream.score(model, by="influence", text=self._text, tokens=TOKENS)
            ]
        elif how == 1:
            plan = gatenorm_stream.plan(model, by="influence", max_rise=5.0, text=self._text, tokens=TOKENS)
            assert plan.measured
            numbers = [plan.measured.loss, plan.measured.pruned, plan.measured.error, *plan.measured.influence]
        else:
            found = gatenorm_stream.measure(model, text=self._text, tokens=TOKENS, random=0)
            numbers = _numbers(found)
        if not all(map(math.isfinite, numbers)):
            raise FindingError(f"taken for numbers: {numbers}")

    def _spoilt_checkpoint(self, rng: random.Random) -> Path:
        config, tokenizer = llama_config(num_hidden_layers=LAYERS), json.loads(json.dumps(self._tokenizer))
        weights = bytearray(self._stored)
        kind = rng.randrange(4)
        if kind == 0:
            config[rng.choice(KEYS)] = rng.choice(NUMBERS)
        elif kind == 1:
            scaling = {key: rng.choice(NUMBERS) for key in ROPE if rng.randrange(2)}
            config["rope_scaling"] = {"rope_type": rng.choice(("linear", "llama3", "yarn")), "factor": 2, **scaling}
        elif kind == 2:
            for _ in range(rng.choice((1, 1, 4))):
                holder, key = rng.choice(list(_places(tokenizer)))
                holder[key] = json.loads(json.dumps(rng.choice(PARTS)))
        else:
            start = 8 + int.from_bytes(weights[:8], "little")
            for _ in range(rng.choice((1, 8, 1000))):
                at = start + 2 * rng.randrange((len(weights) - start) // 2)
                weights[at : at + 2] = rng.choice(WEIGHTS)
        (self._model / "config.json").write_text(json.dumps(config))
        (self._model / "tokenizer.json").write_text(json.dumps(tokenizer))
        self._weights.write_bytes(weights)
        return self._model

    def _spoilt_gguf(self, rng: random.Random) -> Path:
        if rng.randrange(2):
            return self._odd_vocabulary(rng)
        whole = bytearray(rng.choice(self._ggufs))
        end = whole.index(b"token_embd.weight")
        start = rng.choice((0, whole.index(b"tokenizer.ggml.model")))
        for _ in range(rng.choice((1, 1, 3))):
            at, new = rng.randrange(start, end), rng.choice(BYTES)
            whole[at : at + len(new)] = new
        self._path.write_bytes(whole)
        return self._path

    def _odd_vocabulary(self, rng: random.Random) -> Path:
        tokens, scores, types = sentencepiece(rng.randrange(4))
        for _ in range(rng.choice((1, 3, 300))):
            at = rng.randrange(len(tokens))
            tokens[at] = rng.choice((tokens[at], "", "e" * rng.randrange(400), tokens[at] * 2, "\0", "\u2028"))
            scores[at] = rng.choice((0.0, -1e38, 1e38, math.inf, -math.inf, math.nan if at % 9 == 0 else 1.0))
            types[at] = rng.choice((-1, 0, 1, 2, 3, 4, 4, 6, 1 << 30))
        kind = rng.choice(("llama", "llama", "llama", "gpt2", "bert", ""))
        return write_vocabulary(
            self._path,
            tokens,
            kind,
            scores=scores,
            types=types,
            bos=rng.choice((None, 0, 1, 5, (1 << 32) - 1)),
            add_bos=rng.choice((None, True, False)),
            prefix=rng.choice((None, True, False)),
            rows=rng.choice((None, None, None, 1, 300)),
            layers=LAYERS,
        )

    def _gguf(self, kind: str) -> bytes:
        path = self._root / f"{kind}.gguf"
        if kind == "gpt2":
            tokens, merges = byte_level_vocabulary(400)
            write_vocabulary(path, tokens, pre="llama-bpe", merges=merges, bos=1, layers=LAYERS)
        else:
            tokens, scores, types = sentencepiece()
            write_vocabulary(path, tokens, "llama", scores=scores, types=types, layers=LAYERS)
        return path.read_bytes()


def _tokenizer() -> dict[str, Any]:
    letters = [*string.ascii_lowercase]
    vocabulary = {token: id for id, token in enumerate(["<unk>", "<s>", "th", *letters])}
    model = {"type": "BPE", "unk_token": "<unk>", "vocab": vocabulary, "merges": [["t", "h"]], "fuse_unk": False}
    added = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    template = [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
    return {
        "version": "1.0",
        "added_tokens": [{"id": 1, "content": "<s>", **added}],
        "normalizer": {"type": "NFC"},
        "pre_tokenizer": {"type": "Whitespace"},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": template,
            "pair": template,
            "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}},
        },
        "model": model,
    }


def _places(value: Any) -> list[tuple[Any, Any]]:
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place for key, inner in list(entries) for place in ((value, key), *_places(inner))]


def _numbers(found: Measurement | MeasuredOutput) -> list[float]:
    assert isinstance(found, Measurement)
    layers = [n for m in found.layers for n in (m.score, m.influence, m.constant)]
    return [found.loss, *layers, *(n for c in found.choices for n in (c.loss, c.rise, c.error))]
