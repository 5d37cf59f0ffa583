"""The tokenizer of an output is the source's: for every model type, with and without remote code.

Members tried: each row of the tables with a class named for it, with another, with that of Llama, and with none, in
tokenizer.json's of six kinds; DeepSeek's distilled Qwen; a class named in config.json; the format no-op.
"""

from __future__ import annotations

import json
import shutil
from functools import cache

import pytest
from transformers import AutoTokenizer
from transformers.models.auto import tokenization_auto as stock

import gatenorm_stream
from gatenorm_stream.families.table import FAMILIES
from gatenorm_stream.families.wrappers import WRAPPERS
from gatenorm_stream.formats.tokenizer import AS_IT_IS, FORCED, REGISTERED
from tests.families import wrapper_cases
from tests.families.cases import CASES
from tests.tokenizers_of_kinds import KINDS, TEXT, write_tokenizer

pytestmark = pytest.mark.engines
TYPES = (*(row.model_type for row in FAMILIES if row.stock), *WRAPPERS)
CASE = {
    **{case.family: case for case in reversed(CASES)},
    **{case.wrapper: case for case in reversed(wrapper_cases.CASES)},
}
MADE = cache(lambda kind: KINDS[kind]())
KIND_OF = {
    "LlamaTokenizer": "pieces",
    "GemmaTokenizer": "pieces, no space before",
    "Qwen2Tokenizer": "pattern",
    AS_IT_IS: "digits",
}
"""The kind of tokenizer.json that models of a class have; of the others, GPT-2's."""
DECLARED = [
    *((name, None, KIND_OF.get(REGISTERED.get(name, AS_IT_IS), "gpt2")) for name in TYPES),
    *((name, "GPT2Tokenizer", "digits") for name in TYPES),
    *((name, "LlamaTokenizerFast", "pieces") for name in TYPES),
    *((name, REGISTERED[name], KIND_OF.get(REGISTERED[name], "digits")) for name in TYPES if name in REGISTERED),
    *((name, AS_IT_IS, "digits") for name in ("qwen2", "qwen3", "gemma2", "cohere", "mistral", "llama")),
    *((name, "LlamaTokenizerFast", "pattern") for name in ("qwen2", "qwen3", "llama", "gemma2", "mistral", "phi3")),
    ("mistral", "LlamaTokenizer", "pieces with <s>"),
    ("phi", "CodeGenTokenizer", "gpt2"),
    ("qwen3", "TokenizersBackend", "digits"),
]


@pytest.mark.parametrize("name", TYPES)
def test_the_tables_are_those_of_transformers(name):
    registered = stock.TOKENIZER_MAPPING_NAMES.get(name)
    registered = registered and registered.removesuffix("Fast")
    if registered in ("TokenizersBackend", "MistralCommonBackend"):
        assert FORCED.get(name) == AS_IT_IS
    elif name in stock.MODELS_WITH_INCORRECT_HUB_TOKENIZER_CLASS:
        assert FORCED.get(name) == registered
    else:
        assert REGISTERED.get(name) == registered
        assert name not in FORCED


@pytest.mark.parametrize(("name", "declared", "kind"), DECLARED)
def test_the_ids_are_the_sources(name, declared, kind, checkpoint, tmp_path):
    source = tmp_path / "source"
    shutil.copytree(checkpoint(CASE[name]), source)
    write_tokenizer(source, MADE(kind), declared)
    assert_the_same(source, tmp_path)


@pytest.mark.parametrize("declared", [None, "LlamaTokenizer", "GPT2Tokenizer"])
@pytest.mark.parametrize("name", ["mistral", "qwen2", "llama"])
def test_no_op(name, declared, tmp_path, sotu):
    """The fixture model passes for one of each type whose layers are Llama's."""
    source = tmp_path / "source"
    shutil.copytree(sotu, source)
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps({**config, "model_type": name, "sliding_window": None}))
    write_tokenizer(source, MADE("digits"), declared)
    assert_the_same(source, tmp_path, "no-op")


def test_a_class_named_in_config_json(checkpoint, tmp_path):
    source = tmp_path / "source"
    shutil.copytree(checkpoint(CASE["granite"]), source)
    write_tokenizer(source, MADE("digits"), None)
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps({**config, "tokenizer_class": "GPT2Tokenizer"}))
    assert_the_same(source, tmp_path)


def assert_the_same(source, tmp_path, form="transformers"):
    out, again = tmp_path / "out", tmp_path / "again"
    plan = gatenorm_stream.plan(source, drop=1, format=form, protect_first=1)
    gatenorm_stream.prune(plan, out)
    gatenorm_stream.verify(out, against=source)
    before = AutoTokenizer.from_pretrained(source)
    expected = before(TEXT).input_ids
    for trust in (False, True):
        after = AutoTokenizer.from_pretrained(out, trust_remote_code=trust)
        assert type(after) is type(before)
        assert after(TEXT).input_ids == expected
        assert after.decode(expected) == before.decode(expected)
        after.save_pretrained(again)
        for name in ("config.json", "modeling_gatenorm.py"):  # as the model's save_pretrained puts them there
            shutil.copy(out / name, again)
        for trust_saved in (False, True):
            saved = AutoTokenizer.from_pretrained(again, trust_remote_code=trust_saved)
            assert saved(TEXT).input_ids == expected
