"""Loads a pruned checkpoint and its source and compares logits and generated text. Needs only transformers.

    python check.py SOURCE PRUNED LAYERS [IMPLEMENTATION]

Run in an environment that may be too old for the package itself: the file that travels along must do.
"""

from __future__ import annotations

import sys

import torch
from transformers import AutoModelForCausalLM

TOLERANCE = 1e-4
ATTENTION = ("self_attn", "attention", "self_attention", "attn")
GREEDY = {"max_new_tokens": 12, "min_new_tokens": 12, "do_sample": False, "pad_token_id": 0}


def silence(model: torch.nn.Module, layers: list[int]) -> None:
    """Attention's output becomes zero in these layers."""
    for index, attention in enumerate(attentions(model)):
        if index in layers:
            attention.register_forward_hook(lambda _m, _i, out: (torch.zeros_like(out[0]), *out[1:]))


def attentions(model: torch.nn.Module) -> list[torch.nn.Module]:
    lists = (m for m in model.modules() if isinstance(m, torch.nn.ModuleList))
    layers = next(m for m in lists if any(hasattr(m[0], name) for name in ATTENTION))
    return [next(getattr(layer, name) for name in ATTENTION if hasattr(layer, name)) for layer in layers]


@torch.no_grad()
def main(source: str, pruned: str, layers: str, implementation: str = "sdpa") -> None:
    dropped = [int(n) for n in layers.split(",")]
    stock = AutoModelForCausalLM.from_pretrained(source, attn_implementation=implementation).float().eval()
    model = AutoModelForCausalLM.from_pretrained(pruned, attn_implementation=implementation, trust_remote_code=True)
    model = model.float().eval()
    tokens = torch.randint(3, 100, (2, 12), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(tokens)
    tokens[0, :4], mask[0, :4] = 0, 0
    whole = stock(tokens, attention_mask=mask).logits[mask.bool()]
    silence(stock, dropped)
    expected = stock(tokens, attention_mask=mask).logits[mask.bool()]
    actual = model(tokens, attention_mask=mask).logits[mask.bool()]
    difference = float((actual - expected).abs().max() / expected.abs().max())
    assert difference <= TOLERANCE, difference
    assert float((whole - expected).abs().max()) > 100 * TOLERANCE
    texts = [
        model.generate(tokens, attention_mask=mask, **GREEDY).tolist(),
        model.generate(tokens, attention_mask=mask, use_cache=False, **GREEDY).tolist(),
        stock.generate(tokens, attention_mask=mask, **GREEDY).tolist(),
    ]
    assert texts[0] == texts[1] == texts[2]
    assert [n for n, a in enumerate(attentions(model)) if not list(a.parameters())] == dropped
    print(f"ok {difference:.1e}")


if __name__ == "__main__":
    main(*sys.argv[1:])
