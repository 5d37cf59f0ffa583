"""Ways to choose the attention sublayers that go, besides the command's own readings.

Each gives one number a layer; the lowest go first, and of equals the deeper. Layer 0 is never chosen, as in the
command. `greedy` gives its choices directly.
"""

import random
from collections.abc import Callable, Sequence

import torch
from transformers import PreTrainedModel

PROTECTED = 1


def counts(layers: int) -> dict[str, int]:
    """The numbers of sublayers that go: shares of the layers, rounded down, at least 1."""
    return {f"L/{n}": max(1, layers // n) for n in (12, 6, 5, 4, 3, 2)}


def lowest(scores: Sequence[float], count: int) -> tuple[int, ...]:
    candidates = sorted(range(PROTECTED, len(scores)), key=lambda i: (scores[i], -i))
    return tuple(sorted(candidates[:count]))


def random_choices(layers: int, count: int, draws: int, seed: int) -> list[tuple[int, ...]]:
    """`draws` choices, uniform and independent of each other."""
    generator = random.Random(f"{seed} {count}")
    return [tuple(sorted(generator.sample(range(PROTECTED, layers), count))) for _ in range(draws)]


def last(layers: int) -> list[float]:
    return [float(-i) for i in range(layers)]


def first(layers: int) -> list[float]:
    return [float(i) for i in range(layers)]


def value_output(model: PreTrainedModel) -> list[float]:
    """||W_O||_F ||W_V||_F of each layer."""
    attentions = [layer.self_attn for layer in model.model.layers]
    return [(a.o_proj.weight.double().norm() * a.v_proj.weight.double().norm()).item() for a in attentions]


def _heads(weight: torch.Tensor, dim: int) -> torch.Tensor:
    """(heads * dim, hidden) as (heads, dim, hidden), in float64."""
    return weight.double().unflatten(0, (-1, dim))


def folded(model: PreTrainedModel) -> list[float]:
    """The per-head score with the norms' weights folded in, computed here, not by the command.

    The input norm scales the columns of W_Q and W_K. A q/k norm makes a head's own scale void: each head's block
    is scaled to the Frobenius norm sqrt(head_dim), then its rows by the norm's weight.
    """
    scores = []
    for layer in model.model.layers:
        attention, dim = layer.self_attn, layer.self_attn.head_dim
        sides = []
        for projection, norm in ((attention.q_proj, "q_norm"), (attention.k_proj, "k_norm")):
            heads = _heads(projection.weight * layer.input_layernorm.weight, dim)
            if hasattr(attention, norm):
                scale = dim**0.5 / heads.norm(dim=(1, 2), keepdim=True)
                heads = heads * scale * getattr(attention, norm).weight.double()[:, None]
            sides.append(heads)
        q, k = sides
        k = k.repeat_interleave(len(q) // len(k), dim=0)
        scores.append(((q @ q.mT) * (k @ k.mT)).sum().sqrt().item())
    return scores


def value_output_product(model: PreTrainedModel) -> list[float]:
    """sqrt(sum_h ||O_h V_g(h)||_F^2): what heads write for what they read, the input norm folded into V."""
    scores = []
    for layer in model.model.layers:
        attention, dim = layer.self_attn, layer.self_attn.head_dim
        v = _heads(attention.v_proj.weight * layer.input_layernorm.weight, dim)
        o = _heads(attention.o_proj.weight.T, dim)
        v = v.repeat_interleave(len(o) // len(v), dim=0)
        scores.append(((o @ o.mT) * (v @ v.mT)).sum().sqrt().item())
    return scores


@torch.no_grad()
def on_data(model: PreTrainedModel, rows: torch.Tensor) -> tuple[list[float], list[float]]:
    """Of each layer, means over tokens: 1 - cos(x, x + a) as in LLM-Drop, and ||a|| / ||x||.

    x is the residual stream that enters the attention sublayer and a what attention adds to it.
    """
    entering: dict[int, torch.Tensor] = {}
    cosine, ratio = [], []

    def before(index: int) -> Callable[..., None]:
        def hook(module: torch.nn.Module, args: tuple[torch.Tensor, ...], kwargs: dict[str, object]) -> None:
            entering[index] = (args[0] if args else kwargs["hidden_states"]).float()

        return hook

    def after(index: int) -> Callable[..., None]:
        def hook(module: torch.nn.Module, args: object, output: tuple[torch.Tensor, ...]) -> None:
            x, a = entering.pop(index), output[0].float()
            cosine.append(1 - torch.cosine_similarity(x, x + a, dim=-1).double().mean().item())
            ratio.append((a.norm(dim=-1) / x.norm(dim=-1)).double().mean().item())

        return hook

    hooks = []
    for index, layer in enumerate(model.model.layers):
        hooks.append(layer.register_forward_pre_hook(before(index), with_kwargs=True))
        hooks.append(layer.self_attn.register_forward_hook(after(index)))
    try:
        model(input_ids=rows[:, :-1], use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()
    return cosine, ratio


def greedy(loss: Callable[[Sequence[int]], float], layers: int, most: int) -> list[tuple[int, ...]]:
    """The choices of 1, 2, ..., `most` sublayers, each the last and the one more that costs least."""
    chosen: tuple[int, ...] = ()
    steps = []
    for _ in range(most):
        rest = [i for i in range(PROTECTED, layers) if i not in chosen]
        best = min(rest, key=lambda i: loss((*chosen, i)))
        chosen = tuple(sorted((*chosen, best)))
        steps.append(chosen)
    return steps
