"""Models with another head than a language model's, or none: the output is of the source's class and computes the same.

Members tried: every family without a head and as a classifier of sequences, and where transformers has them as a
classifier of tokens and for answers; attention to later tokens; the wrong Auto class; saved again.
"""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
import transformers
from transformers.models.auto import modeling_auto

import gatenorm_stream
from gatenorm_stream.families.model_class import HEADS, MISSING, STEMS, WITHOUT_HEAD
from gatenorm_stream.families.table import FAMILIES
from tests.families import tiny
from tests.families.cases import CASES, Case

pytestmark = pytest.mark.engines
TOLERANCE = 1e-4
ROWS = {row.model_type: row for row in FAMILIES if row.stock}
FIRST = {case.family: case for case in reversed(CASES)}
SOME = ("llama", "mistral", "qwen2", "falcon", "gpt_neox", "gpt2", "gptj", "gemma2", "phi3", "qwen3_moe", "exaone4")
"""Families whose classifiers of tokens and answers are tried."""
MAPPINGS = {
    "ForSequenceClassification": modeling_auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
    "ForTokenClassification": modeling_auto.MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES,
    "ForQuestionAnswering": modeling_auto.MODEL_FOR_QUESTION_ANSWERING_MAPPING_NAMES,
}


def stem(family: str) -> str:
    architecture = ROWS[family].architecture
    return STEMS.get(family) or architecture.removesuffix("ForCausalLM").removesuffix("LMHeadModel")


def other(family: str, end: str) -> Case:
    auto = HEADS.get(end, WITHOUT_HEAD)
    options = {**FIRST[family].options, "num_labels": 3} if end in HEADS else FIRST[family].options
    return replace(FIRST[family], model=f"{stem(family)}{end}", auto=auto, options=options, form=end)


OTHERS = [
    *(other(family, "Model") for family in FIRST),
    *(other(family, "ForSequenceClassification") for family in FIRST if family in MAPPINGS["ForSequenceClassification"]),
    *(other(family, end) for end in list(MAPPINGS)[1:] for family in SOME if family in MAPPINGS[end]),
]


@pytest.mark.parametrize("family", FIRST)
def test_the_tables_say_which_classes_transformers_has(family):
    assert modeling_auto.MODEL_MAPPING_NAMES[family] == f"{stem(family)}Model"
    for end, mapping in MAPPINGS.items():
        assert mapping.get(family) == (None if family in MISSING[end] else f"{stem(family)}{end}")


@torch.no_grad()
@pytest.mark.parametrize("case", OTHERS, ids=str)
def test_pruned_equals_silenced(case, tmp_path, load_pruned):
    source, out, layer = tmp_path / "source", tmp_path / "out", case.attention[1]
    made = tiny.make(case)
    made.save_pretrained(source)
    gatenorm_stream.prune(gatenorm_stream.plan(source, layers=[layer]), out)
    stock = tiny.load(source, case)
    model = load_pruned(out, case, stock)
    assert_same(stock, model, layer)


def assert_same(stock, model, layer):
    tokens = torch.randint(3, 128, (2, 9), generator=torch.Generator().manual_seed(1))
    with tiny.silenced(stock, (layer,)):
        expected = numbers(stock, tokens)
    whole, actual = numbers(stock, tokens), numbers(model, tokens)
    assert float((actual - expected).abs().max()) <= TOLERANCE * float(expected.abs().max())
    assert float((whole - expected).abs().max()) > 10 * TOLERANCE * float(expected.abs().max())


def numbers(model, tokens):
    out = model(tokens, attention_mask=torch.ones_like(tokens))
    return torch.cat([t.flatten() for t in (out[0], *out[1:2]) if isinstance(t, torch.Tensor)])
