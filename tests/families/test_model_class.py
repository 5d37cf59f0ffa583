"""Models with another head than a language model's, or none: the output is of the source's class.

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
    labels = {} if end not in HEADS else {"num_labels": 2 if end == "ForQuestionAnswering" else 3}
    options = {**FIRST[family].options, **labels}
    return replace(FIRST[family], model=f"{stem(family)}{end}", auto=auto, options=options, form=end)


OTHERS = [
    *(other(family, "Model") for family in FIRST),
    *(
        other(family, end)
        for end, mapping in MAPPINGS.items()
        for family in (FIRST if end == "ForSequenceClassification" else SOME)
        if family in mapping
    ),
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


@torch.no_grad()
@pytest.mark.parametrize(
    ("case", "key"),
    [(other("llama", "Model"), "is_causal"), (other("gemma3_text", "Model"), "use_bidirectional_attention")],
    ids=str,
)
def test_attention_to_later_tokens_stays(case, key, tmp_path, load_pruned):
    source, out, layer = tmp_path / "source", tmp_path / "out", case.attention[1]
    tiny.make(case).save_pretrained(source)
    causal = tiny.load(source, case)
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps({**config, key: key != "is_causal"}))
    stock = tiny.load(source, case)
    tokens = torch.arange(3, 12)[None]
    assert not torch.equal(stock(tokens)[0][:, 0], causal(tokens)[0][:, 0])
    plan = gatenorm_stream.plan(source, layers=[layer])
    assert plan.format == "transformers"
    gatenorm_stream.prune(plan, out)
    assert_same(stock, load_pruned(out, case, stock), layer)


@torch.no_grad()
@pytest.mark.parametrize("case", [other("llama", "ForSequenceClassification"), other("mistral", "Model")], ids=str)
def test_another_auto_class_refuses_in_words_and_a_saved_copy_is_the_same(case, tmp_path, load_pruned):
    source, out, again = tmp_path / "source", tmp_path / "out", tmp_path / "again"
    tiny.make(case).save_pretrained(source)
    gatenorm_stream.prune(gatenorm_stream.plan(source, layers=[1]), out)
    with pytest.raises(ValueError, match=f"holds a {case.model}|Unrecognized configuration class"):
        transformers.AutoModelForCausalLM.from_pretrained(out, trust_remote_code=True)
    model = tiny.load(out, case, trust_remote_code=True)
    model.save_pretrained(again)
    tokens = torch.arange(3, 12)[None]
    assert torch.equal(model(tokens)[0], tiny.load(again, case, trust_remote_code=True)(tokens)[0])
    body = transformers.AutoModel.from_pretrained(again, trust_remote_code=True)
    stock = transformers.AutoModel.from_pretrained(source)
    with tiny.silenced(stock, (1,)):
        assert torch.allclose(body(tokens)[0], stock(tokens)[0], atol=1e-5)


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
