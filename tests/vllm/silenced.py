"""The stock transformers model with the attention of some layers made to return zeros, or a constant vector."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
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
    return expected_of(source, {layer: np.zeros(1, np.float32) for layer in layers}, prompt, new, attention)


def expected_of(
    source: Path, vectors: Mapping[int, np.ndarray], prompt: list[int], new: int, attention: str
) -> Expected:
    """The same with vectors (hidden,) for what the attention of these layers puts out."""
    model = stock.load(source)
    with _putting_out(model, {attention.format(layer): vector for layer, vector in vectors.items()}):
        tokens = stock.greedy(model, prompt, new)
        table = _table(model, tokens)
    return Expected(tokens, table, stock.largest_difference(table, _table(model, tokens)))


def _table(model: torch.nn.Module, tokens: list[int]) -> np.ndarray:
    return stock.log_probabilities(stock.logits(model, tokens))[:-1]


@contextmanager
def _putting_out(model: torch.nn.Module, vectors: Mapping[str, np.ndarray]) -> Iterator[None]:
    def hook(vector: torch.Tensor):
        return lambda _module, _inputs, output: (vector.expand_as(output[0]).clone(), *output[1:])

    hooks = [
        model.get_submodule(name).register_forward_hook(hook(torch.from_numpy(vector)))
        for name, vector in vectors.items()
    ]
    yield
    for attached in hooks:
        attached.remove()
