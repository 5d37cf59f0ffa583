"""mlx-lm loads and runs the `no-op` output."""

from importlib.metadata import version

import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.engines import stock
from tests.engines.mlx_engine import MlxLm

pytestmark = pytest.mark.engines
TOLERANCE = 1e-4


def test_equals_the_stock_model_without_that_attention(case, mlx_lm, reference, ids, cell):
    model = mlx_lm(case.out)
    expected = stock.logits(reference(case.source, case.layers), ids)
    whole = stock.logits(reference(case.source, ()), ids)
    assert stock.largest_difference(model.logits(ids), expected) <= TOLERANCE
    assert stock.largest_difference(model.logits_token_by_token(ids), expected) <= TOLERANCE
    assert stock.largest_difference(whole, expected) > 100 * TOLERANCE
    difference = stock.largest_difference(model.logits(ids), expected)
    cell("mlx-lm", version("mlx-lm"), *case.named, difference)


def test_caches_only_the_kept_layers(pruned, mlx_lm):
    assert len(mlx_lm(pruned.out).caches()) == 12 - len(pruned.layers)


def test_generates_the_text_that_the_stock_model_does(pruned, mlx_lm, reference, tokenizer):
    prompt = tokenizer("Fellow citizens of the Senate").input_ids
    expected = stock.greedy(reference(pruned.source, pruned.layers), prompt, 16)[len(prompt) :]
    text = mlx_lm(pruned.out).generate("Fellow citizens of the Senate", 16)
    assert text.strip() == tokenizer.decode(expected).strip()


def test_layer_0(sotu, prune, mlx_lm, reference, ids):
    model = mlx_lm(prune(sotu, (0,), "--engine", "transformers", "--engine", "mlx-lm"))
    expected = stock.logits(reference(sotu, (0,)), ids)
    assert stock.largest_difference(model.logits(ids), expected) <= TOLERANCE


def test_reads_what_transformers_saved(case, tokenizer, mlx_lm, ids, tmp_path):
    model = AutoModelForCausalLM.from_pretrained(case.out, trust_remote_code=True, dtype=torch.float32)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    assert stock.largest_difference(MlxLm(tmp_path).logits(ids), mlx_lm(case.out).logits(ids)) <= TOLERANCE
