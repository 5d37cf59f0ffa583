"""Outputs on a GPU in bfloat16, by each kind of attention, against the stock model with that attention silenced.

Both round to bfloat16 at the same places, so at most noise may differ: less than that rounding changes the silenced
model's own logits.
"""

from __future__ import annotations

import functools
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.families import tiny
from tests.families.cases import CASES

pytestmark = pytest.mark.engines
SOTU = Path(__file__).parents[2] / "fixtures" / "sotu-5m"
GREEDY = {"max_new_tokens": 14, "min_new_tokens": 14, "do_sample": False, "pad_token_id": 0}
FULL = ("llama-multi-head", "qwen2", "qwen3", "phi3", "olmo2", "granite", "glm", "gpt_neox-parallel")
"""Full attention, and heads of a width that flash attention takes."""


def load(path: Path, attention: str, dtype: torch.dtype = torch.bfloat16, **options):
    model = AutoModelForCausalLM.from_pretrained(
        path, attn_implementation=attention, dtype=dtype, device_map="cuda", **options
    )
    assert model.config._attn_implementation == attention
    return model.eval()


@functools.cache
def available(attention: str) -> bool:
    """Of transformers' kinds of flash attention: each is a package of its own."""
    found = getattr(transformers.utils, f"is_flash_attn_{attention[-1]}_available", lambda: False)
    return found()


@torch.no_grad()
def compared(source: Path, out: Path, layers: tuple[int, ...], attention: str, padding: int = 0) -> float:
    """The largest difference of logits; generated text is compared too, and that pruned layers have no cache.

    The first of two prompts begins with `padding` tokens of padding.
    """
    tokens = torch.randint(3, 128, (2, 12), generator=torch.Generator().manual_seed(1)).cuda()
    mask = torch.ones_like(tokens)
    tokens[0, :padding], mask[0, :padding] = 0, 0
    asked = {"attention_mask": mask} if padding else {}

    def logits(model) -> torch.Tensor:
        return model(tokens, **asked).logits[mask.bool()].float()

    stock, model = load(source, attention), load(out, attention, trust_remote_code=True)
    whole, actual = logits(stock), logits(model)
    with tiny.silenced(stock, layers):
        expected, text = logits(stock), stock.generate(tokens, attention_mask=mask, **GREEDY)
    exact = load(source, "sdpa" if attention.startswith("flash") else attention, torch.float32)
    with nullcontext() if attention == "eager" else sdpa_kernel(SDPBackend.MATH), tiny.silenced(exact, layers):
        noise = float((logits(exact) - expected).abs().max())
    difference = float((actual - expected).abs().max())
    assert difference < noise < float((whole - expected).abs().max())

    cached = model.generate(tokens, attention_mask=mask, return_dict_in_generate=True, **GREEDY)
    keys: list[Any] = [getattr(layer, "keys", None) for layer in cached.past_key_values.layers]
    assert all(keys[n] is None or keys[n].shape[-1] == 1 for n in layers)
    assert keys[next(n for n in range(len(keys)) if n not in layers and keys[n] is not None)].shape[-1] > 1
    if difference == 0:
        assert cached.sequences.tolist() == text.tolist()
    return difference


def dropped(case) -> tuple[int, ...]:
    """The first that there is and another one."""
    return (case.attention[0], case.attention[-1]) if len(case.attention) > 2 else case.attention[:1]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_family(case, checkpoint, prune, cell):
    source, layers = checkpoint(case), dropped(case)
    out = prune(source, layers, "--format", "transformers")
    difference = compared(source, out, layers, case.implementation, padding=4)
    cell("transformers-gpu", transformers.__version__, case.family, f"{case}, {case.implementation}", difference)


@pytest.mark.parametrize("case", [case for case in CASES if str(case) in FULL], ids=str)
@pytest.mark.parametrize("attention", ["eager", "sdpa by flash", "flash_attention_2", "flash_attention_4"])
def test_kinds_of_attention(case, attention, checkpoint, prune, cell):
    source, layers = checkpoint(case), dropped(case)
    out = prune(source, layers, "--format", "transformers")
    if attention == "sdpa by flash":
        with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
            difference = compared(source, out, layers, "sdpa")
    elif attention == "eager" or available(attention):
        difference = compared(source, out, layers, attention)
    else:
        pytest.skip(f"{attention}: its package is not installed")
    cell("transformers-gpu", transformers.__version__, case.family, f"{case}, {attention}", difference)


@torch.no_grad()
@pytest.mark.parametrize("layers", [(1, 6, 11), (0, 5)], ids=str)
def test_a_trained_model(layers, prune, cell):
    """The fixture model, in the format `no-op`: text by greedy search, with and without cache, and as a batch."""
    out = prune(SOTU, layers, "--format", "no-op", "--engine", "transformers")
    difference = compared(SOTU, out, layers, "sdpa")
    stock, model = load(SOTU, "sdpa"), load(out, "sdpa", trust_remote_code=True)
    tokenizer = AutoTokenizer.from_pretrained(SOTU, padding_side="left", pad_token="<unk>")
    prompts = ["Fellow citizens of the Senate and House of Representatives", "The people"]
    given = tokenizer(prompts, return_tensors="pt", padding=True).to("cuda")
    asked = GREEDY | {"max_new_tokens": 64}
    with tiny.silenced(stock, layers):
        expected = stock.generate(**given, **asked)
    assert model.generate(**given, **asked).tolist() == expected.tolist()
    cell("transformers-gpu", transformers.__version__, "llama", f"sotu-5m, no-op, {layers}", difference)
