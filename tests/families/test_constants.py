"""Every family, multimodal models too: a constant in the place of attention is as if attention put it out."""

from __future__ import annotations

import pytest
import torch
import transformers
from safetensors.torch import load_file

from tests.constants import compensate, random_vectors
from tests.families import tiny, wrapper_cases
from tests.families.absence import assert_cache_only_where_attention_is
from tests.families.cases import CASES, Case

pytestmark = pytest.mark.engines
TOLERANCE = 1e-4
ROUNDING = 1e-6
GREEDY = {"max_new_tokens": 8, "min_new_tokens": 8, "do_sample": False, "pad_token_id": 0}
HIDDEN = 64


def layers_of(case: Case) -> tuple[int, ...]:
    """Two that are neighbours, or one where there are two."""
    return case.attention[-2:] if len(case.attention) > 2 else case.attention[:1]


def tensors(vectors) -> dict[int, torch.Tensor]:
    return {layer: torch.from_numpy(vector) for layer, vector in vectors.items()}


def has_output_bias(model, layer: int) -> bool:
    """Whether some bias is all that its attention puts out once the weights before it are zero."""
    parts = dict(tiny.attention(model, layer).named_modules())
    outputs = [parts[n] for n in ("o_proj", "dense", "c_proj", "out_proj") if n in parts]
    return all(getattr(output, "bias", None) is not None for output in outputs)


@torch.no_grad()
@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_parameter_in_the_place_of_attention(case, checkpoint, load_pruned, cell, tmp_path):
    source, layers = checkpoint(case), layers_of(case)
    vectors = random_vectors(layers, HIDDEN)
    stock = tiny.load(source, case)
    out = compensate(source, vectors, "transformers", tmp_path)
    model = load_pruned(out, case, stock)
    tokens = torch.randint(3, 128, (2, 12), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(tokens)
    tokens[0, :4], mask[0, :4] = 0, 0
    with tiny.putting_out(stock, tensors(vectors)):
        expected = stock(tokens, attention_mask=mask).logits[mask.bool()]
        text = stock.generate(tokens, attention_mask=mask, **GREEDY)
    with tiny.silenced(stock, layers):
        plain = stock(tokens, attention_mask=mask).logits[mask.bool()]
    difference = float((model(tokens, attention_mask=mask).logits[mask.bool()] - expected).abs().max())
    assert difference <= TOLERANCE * float(expected.abs().max())
    assert float((plain - expected).abs().max()) > 100 * TOLERANCE

    cached = model.generate(tokens, attention_mask=mask, return_dict_in_generate=True, **GREEDY)
    uncached = model.generate(tokens, attention_mask=mask, use_cache=False, **GREEDY)
    assert cached.sequences.tolist() == uncached.tolist() == text.tolist()
    assert_cache_only_where_attention_is(cached.past_key_values, 12 + 8 - 1, case, layers)
    for layer in layers:
        assert [name for name, _ in tiny.attention(model, layer).named_parameters()] == ["constant"]
    model.save_pretrained(tmp_path / "saved")
    again = load_pruned(tmp_path / "saved", case, stock)
    shift = again(tokens, attention_mask=mask).logits - model(tokens, attention_mask=mask).logits
    assert float(shift.abs().max()) <= ROUNDING
    assert load_file(tmp_path / "saved/model.safetensors").keys() == load_file(out / "model.safetensors").keys()
    cell("transformers", transformers.__version__, case.family, f"constants, {case}, layers {layers}", difference)


@torch.no_grad()
@pytest.mark.parametrize("case", wrapper_cases.CASES, ids=str)
def test_within_a_multimodal_model(case, checkpoint, load_pruned, cell, tmp_path):
    source, layers = checkpoint(case), layers_of(case)
    vectors = random_vectors(layers, case.options["text_config"]["hidden_size"])
    stock = tiny.load(source, case)
    model = load_pruned(compensate(source, vectors, "transformers", tmp_path), case, stock)
    differences = []
    for image in (False, True):
        inputs = case.inputs(image)
        with tiny.putting_out(stock, tensors(vectors)):
            expected = stock(**inputs).logits
        with tiny.silenced(stock, layers):
            plain = stock(**inputs).logits
        differences.append(float((model(**inputs).logits - expected).abs().max()))
        assert differences[-1] <= TOLERANCE * float(expected.abs().max())
        assert float((plain - expected).abs().max()) > 100 * TOLERANCE
    model.save_pretrained(tmp_path / "saved")
    again = load_pruned(tmp_path / "saved", case, stock)
    assert float((again(**inputs).logits - model(**inputs).logits).abs().max()) <= ROUNDING
    cell("transformers", transformers.__version__, case.wrapper, f"constants, {case}", max(differences))


@torch.no_grad()
@pytest.mark.parametrize("case", CASES, ids=str)
def test_zeroed_holds_it_where_the_output_projection_has_a_bias(case, checkpoint, tmp_path):
    source, layers = checkpoint(case), layers_of(case)
    vectors = random_vectors(layers, HIDDEN)
    stock = tiny.load(source, case)
    model = tiny.load(compensate(source, vectors, "zeroed", tmp_path), case)
    tokens = torch.randint(3, 128, (1, 9), generator=torch.Generator().manual_seed(1))
    held = has_output_bias(stock, layers[0])
    with tiny.putting_out(stock, tensors(vectors)) if held else tiny.silenced(stock, layers):
        expected = stock(tokens).logits
    assert float((model(tokens).logits - expected).abs().max()) <= TOLERANCE * float(expected.abs().max())


def test_zeroed_holds_it_in_some_families():
    held = [str(c) for c in CASES if has_output_bias(tiny.make(c), layers_of(c)[0])]
    assert {"llama-biases", "gpt2", "phi", "gpt_neox-parallel", "starcoder2", "gpt_oss"} <= set(held)
    assert "llama" not in held


@torch.no_grad()
def test_it_follows_the_model_to_another_dtype(checkpoint, load_pruned, tmp_path):
    case = next(c for c in CASES if c.family == "qwen3")
    source = checkpoint(case)
    out = compensate(source, random_vectors((1, 2), HIDDEN), "transformers", tmp_path)
    model = load_pruned(out, case, tiny.load(source, case)).to(torch.bfloat16)
    assert tiny.attention(model, 1).constant.dtype == torch.bfloat16
    assert model(torch.tensor([[5, 6, 7]])).logits.dtype == torch.bfloat16
    body = transformers.AutoModel.from_pretrained(out, trust_remote_code=True)
    assert torch.equal(body.layers[2].self_attn.constant, torch.from_numpy(random_vectors((1, 2), HIDDEN)[2]))
