"""The stock transformers model with the attention of some layers made to return zeros."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from tests.engines import stock


@dataclass(frozen=True)
class Expected:
    """`tokens`: prompt and greedy continuation, (t,). `table`: log-probabilities after each but the last token,
    (t - 1, vocabulary). `effect`: how far they are from the whole model's."""

    tokens: list[int]
    table: np.ndarray
    effect: float


def expected(source: Path, layers: tuple[int, ...], prompt: list[int], new: int, attention: str) -> Expected:
    """`attention` is where the model keeps it, with {} for the layer."""
    model = stock.load(source)
    with _silenced(model, [attention.format(layer) for layer in layers]):
        tokens = stock.greedy(model, prompt, new)
        table = _table(model, tokens)
    return Expected(tokens, table, stock.largest_difference(table, _table(model, tokens)))


def _table(model: torch.nn.Module, tokens: list[int]) -> np.ndarray:
    return stock.log_probabilities(stock.logits(model, tokens))[:-1]


@contextmanager
def _silenced(model: torch.nn.Module, names: list[str]) -> Iterator[None]:
    def zeros(module, inputs, output):
        return (torch.zeros_like(output[0]), *output[1:])

    hooks = [model.get_submodule(name).register_forward_hook(zeros) for name in names]
    yield
    for hook in hooks:
        hook.remove()
