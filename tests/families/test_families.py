"""Every family: scored as its own modules compute, pruned, and run by transformers as if attention were silent."""

from __future__ import annotations

import pytest
import torch
import transformers

import gatenorm_stream
from gatenorm_stream.families.table import FAMILIES
from tests.families import tiny
from tests.families.absence import ROWS, assert_attention_is_absent, assert_cache_only_where_attention_is
from tests.families.cases import CASES, LAYERS, Case

pytestmark = pytest.mark.engines
TOLERANCE = 1e-4


def droppable(case: Case) -> list[tuple[int, ...]]:
    """One in the middle; the first and the last, but not all."""
    first, *rest = case.attention
    return [(case.attention[1],), (first, *rest[1:]) if len(rest) > 1 else (first,)]


PRUNINGS = [(case, layers) for case in CASES for layers in droppable(case)]
NAMES = [f"{case}-{'+'.join(map(str, layers))}" for case, layers in PRUNINGS]


def test_every_row_has_a_case():
    assert {case.family for case in CASES} == {row.model_type for row in FAMILIES if row.stock}


@pytest.mark.parametrize("row", [row for row in FAMILIES if row.stock], ids=lambda row: row.model_type)
def test_rows_know_the_stock_defaults(row):
    config = transformers.CONFIG_MAPPING[row.model_type]()
    assert row.defaults == {key: getattr(config, key) for key in row.defaults}


@pytest.mark.parametrize("case", CASES, ids=str)
def test_scores_are_those_of_the_modules_own_heads(case, checkpoint):
    path = checkpoint(case)
    model = tiny.load(path, case)
    expected = {n: tiny.scores(*tiny.heads(model, n)) for n in case.attention}
    for reading in ("per-head", "joint", "stored"):
        if reading == "stored" and ROWS[case.family].latent:
            continue
        scores = gatenorm_stream.score(path, reading=reading)
        assert [s.layer for s in scores] == list(case.attention)
        for s in scores:
            assert s.score == pytest.approx(expected[s.layer][reading], rel=1e-5), (reading, s.layer)


@torch.no_grad()
@pytest.mark.parametrize(("case", "layers"), PRUNINGS, ids=NAMES)
def test_pruned_equals_silenced(case, layers, checkpoint, prune, cell, load_pruned):
    source = checkpoint(case)
    out = prune(source, layers, "--format", "transformers")
    stock = tiny.load(source, case)
    model = load_pruned(out, case, stock)
    tokens = torch.randint(3, 128, (2, 12), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(tokens)
    tokens[0, :4], mask[0, :4] = 0, 0
    with tiny.silenced(stock, layers):
        expected = stock(tokens, attention_mask=mask).logits[mask.bool()]
        expected_text = stock.generate(tokens, attention_mask=mask, **GREEDY)
    actual = model(tokens, attention_mask=mask).logits[mask.bool()]
    whole = stock(tokens, attention_mask=mask).logits[mask.bool()]
    difference = float((actual - expected).abs().max())
    assert difference <= TOLERANCE * float(expected.abs().max())
    assert float((whole - expected).abs().max()) > 100 * TOLERANCE

    cached = model.generate(tokens, attention_mask=mask, return_dict_in_generate=True, **GREEDY)
    uncached = model.generate(tokens, attention_mask=mask, use_cache=False, **GREEDY)
    assert cached.sequences.tolist() == uncached.tolist() == expected_text.tolist()
    assert_cache_only_where_attention_is(cached.past_key_values, 12 + 14 - 1, case, layers)
    assert_attention_is_absent(model, case, layers)
    cell("transformers", transformers.__version__, case.family, f"{case}, layers {layers}", difference)


GREEDY = {"max_new_tokens": 14, "min_new_tokens": 14, "do_sample": False, "pad_token_id": 0}


@torch.no_grad()
@pytest.mark.parametrize("case", CASES, ids=str)
def test_zeroed_equals_silenced(case, checkpoint, prune):
    source, layers = checkpoint(case), droppable(case)[1]
    stock, model = tiny.load(source, case), tiny.load(prune(source, layers, "--format", "zeroed"), case)
    tokens = torch.randint(3, 128, (1, 9), generator=torch.Generator().manual_seed(1))
    with tiny.silenced(stock, layers):
        expected = stock(tokens).logits
    assert float((model(tokens).logits - expected).abs().max()) <= TOLERANCE * float(expected.abs().max())
    assert len(tiny.decoder_layers(model)) == LAYERS
