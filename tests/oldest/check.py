"""Loads pruned checkpoints and their source and compares logits and generated text. Needs only transformers.

    python check.py SOURCE AUTO IMPLEMENTATION PRUNED ...

AUTO is the Auto class to load them with. Run with a transformers that may be too old for the package itself: the
file that travels along must do. Prints the version of transformers and the largest difference of logits.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
import transformers

TOLERANCE = 1e-4
ATTENTION = ("self_attn", "attention", "self_attention", "attn")
GREEDY = {"max_new_tokens": 12, "min_new_tokens": 12, "do_sample": False, "pad_token_id": 0}


def attentions(model: torch.nn.Module) -> list[torch.nn.Module]:
    count = model.config.get_text_config().num_hidden_layers
    lists = (m for m in model.modules() if isinstance(m, torch.nn.ModuleList) and len(m) == count)
    layers = next(m for m in lists if any(hasattr(m[0], name) for name in ATTENTION))
    return [next(getattr(layer, name) for name in ATTENTION if hasattr(layer, name)) for layer in layers]


def silence(model: torch.nn.Module, layers: list[int]) -> list:
    """Attention's output becomes zero in these layers, until the hooks returned are removed."""

    def zero(_module, _inputs, output):
        return torch.zeros_like(output[0]), *output[1:]

    return [a.register_forward_hook(zero) for n, a in enumerate(attentions(model)) if n in layers]


@torch.no_grad()
def compared(stock: torch.nn.Module, model: torch.nn.Module, dropped: list[int]) -> float:
    tokens = torch.randint(3, 100, (2, 12), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(tokens)
    tokens[0, :4], mask[0, :4] = 0, 0
    whole = stock(tokens, attention_mask=mask).logits[mask.bool()]
    actual = model(tokens, attention_mask=mask).logits[mask.bool()]
    texts = [
        model.generate(tokens, attention_mask=mask, **GREEDY).tolist(),
        model.generate(tokens, attention_mask=mask, use_cache=False, **GREEDY).tolist(),
    ]
    hooks = silence(stock, dropped)
    expected = stock(tokens, attention_mask=mask).logits[mask.bool()]
    texts.append(stock.generate(tokens, attention_mask=mask, **GREEDY).tolist())
    for hook in hooks:
        hook.remove()
    difference = float((actual - expected).abs().max())
    assert difference <= TOLERANCE * float(expected.abs().max()), difference
    assert float((whole - expected).abs().max()) > 100 * TOLERANCE
    assert texts[0] == texts[1] == texts[2]
    assert [n for n, a in enumerate(attentions(model)) if not list(a.parameters())] == dropped
    return difference


def main(source: str, auto: str, implementation: str, *pruned: str) -> None:
    def load(path: str, **options) -> torch.nn.Module:
        loaded = getattr(transformers, auto).from_pretrained(path, attn_implementation=implementation, **options)
        return loaded.float().eval()

    stock = load(source)
    differences = []
    for path in pruned:
        dropped = json.loads((Path(path) / "config.json").read_text())["gatenorm"]["pruned_layers"]
        differences.append(compared(stock, load(path, trust_remote_code=True), dropped))
    print(transformers.__version__, max(differences))


if __name__ == "__main__":
    main(*sys.argv[1:])
