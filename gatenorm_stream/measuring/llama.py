"""A Llama-shaped model, as stored tensors and the few numbers that say how they are used: nothing is read."""

from __future__ import annotations

from dataclasses import dataclass

from gatenorm_stream.checkpoint.tensors import Tensor
from gatenorm_stream.families.heads import Heads
from gatenorm_stream.families.projections import Weight
from gatenorm_stream.measuring.rotary import Rotary
from gatenorm_stream.sources.source import Source


@dataclass(frozen=True)
class Linear:
    """x W^T + b, with W stored (out, in) and b (out,)."""

    weight: Weight
    bias: Tensor | None = None

    @property
    def outputs(self) -> int:
        return self.weight.tensor.shape[0]


@dataclass(frozen=True)
class Attention:
    """Softmax attention behind an RMSNorm. A token sees the last `window` ones, itself included; None: all."""

    heads: Heads
    norm: Tensor
    query: Linear
    key: Linear
    value: Linear
    output: Linear
    window: int | None = None


@dataclass(frozen=True)
class Layer:
    """`norm` is the one before the MLP, down(silu(gate(x)) * up(x)). Where there is no attention, `constant`,
    (hidden,), may be in its place.
    """

    attention: Attention | None
    norm: Tensor
    gate: Linear
    up: Linear
    down: Linear
    constant: Tensor | None = None


@dataclass(frozen=True)
class Llama:
    """`norm` is the one before the head, (vocabulary, hidden), which may be the embedding itself."""

    source: Source
    hidden: int
    epsilon: float
    rotary: Rotary
    layers: tuple[Layer, ...]
    embedding: Weight
    norm: Tensor
    head: Weight
