"""Loads pruned checkpoints and their source and compares logits and generated text. Needs only transformers.

    python check.py SOURCE AUTO IMPLEMENTATION PRUNED ...

AUTO is the Auto class to load them with. Run with a transformers that may be too old for the package itself: the
file that travels along must do. Prints the version of transformers and the largest difference of logits.
"""

from __future__ import annotations

import json
import sys
from base64 import b64decode
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


def put_out(model: torch.nn.Module, vectors: dict[int, torch.Tensor]) -> list:
    """Attention's output becomes a vector in these layers, until the hooks returned are removed."""

    def hook(vector):
        return lambda _module, _inputs, output: (vector.expand_as(output[0]).clone(), *output[1:])

    return [attentions(model)[n].register_forward_hook(hook(vector)) for n, vector in vectors.items()]


@torch.no_grad()
def compared(stock: torch.nn.Module, model: torch.nn.Module, plan: dict) -> float:
    tokens = torch.randint(3, 100, (2, 12), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(tokens)
    tokens[0, :4], mask[0, :4] = 0, 0
    whole = stock(tokens, attention_mask=mask).logits[mask.bool()]
    actual = model(tokens, attention_mask=mask).logits[mask.bool()]
    texts = [
        model.generate(tokens, attention_mask=mask, **GREEDY).tolist(),
        model.generate(tokens, attention_mask=mask, use_cache=False, **GREEDY).tolist(),
    ]
    dropped, constants = plan["dropped"], plan.get("constants", {})
    hooks = put_out(stock, {n: vector_of(constants.get(str(n))) for n in dropped})
    expected = stock(tokens, attention_mask=mask).logits[mask.bool()]
    texts.append(stock.generate(tokens, attention_mask=mask, **GREEDY).tolist())
    for hook in hooks:
        hook.remove()
    difference = float((actual - expected).abs().max())
    assert difference <= TOLERANCE * float(expected.abs().max()), difference
    assert float((whole - expected).abs().max()) > 100 * TOLERANCE
    assert texts[0] == texts[1] == texts[2]
    parts = [{name for name, _ in a.named_parameters()} - {"constant"} for a in attentions(model)]
    assert [n for n, names in enumerate(parts) if not names] == dropped
    assert [n for n, a in enumerate(attentions(model)) if hasattr(a, "constant")] == dropped
    return difference


def vector_of(text: str | None) -> torch.Tensor:
    """A constant as gatenorm.json has it; zero if it has none."""
    return torch.frombuffer(bytearray(b64decode(text)), dtype=torch.float32) if text else torch.zeros(())


def main(source: str, auto: str, implementation: str, *pruned: str) -> None:
    def load(path: str, **options) -> torch.nn.Module:
        loaded = getattr(transformers, auto).from_pretrained(path, attn_implementation=implementation, **options)
        return loaded.float().eval()

    stock = load(source)
    differences = []
    for path in pruned:
        plan = json.loads((Path(path) / "gatenorm.json").read_text())
        differences.append(compared(stock, load(path, trust_remote_code=True), plan))
    print(transformers.__version__, max(differences))


if __name__ == "__main__":
    main(*sys.argv[1:])
