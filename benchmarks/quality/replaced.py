"""Attention sublayers replaced in memory: by nothing, or by one vector at every token."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from benchmarks.quality.train import last_hidden

Vector = torch.Tensor
"""(hidden,)"""
FIRST = 1
"""The first token of a row is left out of means: it is an attention sink."""


class Constant(torch.nn.Module):
    def __init__(self, vector: Vector) -> None:
        super().__init__()
        self.vector = vector

    def forward(self, hidden_states: torch.Tensor, **_: object) -> tuple[torch.Tensor, None]:
        return self.vector.to(hidden_states.dtype).expand_as(hidden_states), None


class Averaged(torch.nn.Module):
    """Runs the sublayer, and puts out the mean of its output at every token."""

    def __init__(self, attention: torch.nn.Module) -> None:
        super().__init__()
        self.attention = attention
        self.mean: Vector | None = None

    def forward(self, hidden_states: torch.Tensor, **others: object) -> tuple[torch.Tensor, None]:
        output = self.attention(hidden_states=hidden_states, **others)[0]
        self.mean = output[:, FIRST:].double().mean((0, 1)).float()
        return self.mean.to(output.dtype).expand_as(output), None


@contextmanager
def exchanged(model: PreTrainedModel, modules: Mapping[int, torch.nn.Module]) -> Iterator[None]:
    """These modules stand in the place of the layers' attention inside."""
    layers = model.model.layers
    kept = {number: layers[number].self_attn for number in modules}
    for number, module in modules.items():
        layers[number].self_attn = module
    try:
        yield
    finally:
        for number, module in kept.items():
            layers[number].self_attn = module


@torch.no_grad()
def means_in_order(model: PreTrainedModel, rows: torch.Tensor, dropped: Sequence[int]) -> dict[int, Vector]:
    """For each dropped layer the mean of its output in the model whose earlier dropped layers put out theirs.

    `rows`: token ids, (n, length).
    """
    averaged = {number: Averaged(model.model.layers[number].self_attn) for number in dropped}
    with exchanged(model, averaged):
        last_hidden(model, rows)
    return {number: module.mean for number, module in averaged.items()}


def constants_of(
    model: PreTrainedModel, dropped: Sequence[int], rows: torch.Tensor | None
) -> dict[int, torch.nn.Module]:
    """What stands in the place of dropped attention: means over `rows`, or nothing without."""
    weight = model.model.norm.weight
    if rows is None:
        return {number: Constant(torch.zeros_like(weight)) for number in dropped}
    return {number: Constant(mean) for number, mean in means_in_order(model, rows, dropped).items()}


@torch.no_grad()
def mean_loss(model: PreTrainedModel, rows: torch.Tensor, batch: int) -> float:
    """Nats a token, all tokens but each row's first; rows are (n, length)."""
    total = torch.zeros((), dtype=torch.float64, device=rows.device)
    for part in rows.split(batch):
        logits = model.lm_head(last_hidden(model, part[:, :-1])).float()
        total += cross_entropy(logits.flatten(0, 1), part[:, 1:].flatten(), reduction="sum").double()
    return total.item() / rows[:, 1:].numel()


@dataclass(frozen=True)
class Seen:
    """Of one sublayer of the unpruned model; means over tokens, in float64."""

    influence: float
    fluctuation: float
    varying: float  # the share of the output that is not constant


@torch.no_grad()
def sublayers(model: PreTrainedModel, rows: torch.Tensor) -> list[Seen]:
    """1 - cos(x, x + a) of all tokens; norm(a - mean a) / norm(x) and 1 - |mean a|^2 / mean |a|^2 of all but the
    first of each row.
    """
    entering: list[torch.Tensor] = []
    found: list[Seen] = []

    def before(module: torch.nn.Module, args: tuple[torch.Tensor, ...], kwargs: dict[str, torch.Tensor]) -> None:
        entering.append((args[0] if args else kwargs["hidden_states"]).double())

    def after(module: torch.nn.Module, args: object, output: tuple[torch.Tensor, ...]) -> None:
        x, a = entering.pop(), output[0].double()
        cosine = torch.cosine_similarity(x, x + a, dim=-1).mean()
        x, a = x[:, FIRST:], a[:, FIRST:]
        mean = a.mean((0, 1))
        moving = ((a - mean).norm(dim=-1) / x.norm(dim=-1)).mean()
        share = 1 - mean.square().sum() / a.square().sum(-1).mean()
        found.append(Seen((1 - cosine).item(), moving.item(), share.item()))

    hooks = []
    for layer in model.model.layers:
        hooks.append(layer.register_forward_pre_hook(before, with_kwargs=True))
        hooks.append(layer.self_attn.register_forward_hook(after))
    try:
        last_hidden(model, rows)
    finally:
        for hook in hooks:
            hook.remove()
    return found
