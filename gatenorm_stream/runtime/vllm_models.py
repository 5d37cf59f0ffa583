"""vLLM's stock model classes with attention left out of the pruned layers.

A pruned layer's attention is replaced as soon as vLLM has built it, so that a model that fits only when pruned
loads, and is struck from the list from which vLLM allots its KV cache. The classes are made on demand: asked for
`NAME` or `NAME@VERSION`, this module answers with a subclass of the class that vLLM itself uses for architecture
NAME.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn.modules.module import register_module_module_registration_hook
from vllm import ModelRegistry
from vllm.config import VllmConfig
from vllm.model_executor.layers.attention_layer_base import AttentionLayerBase
from vllm.model_executor.models.transformers.base import Base
from vllm.model_executor.models.utils import PPMissingLayer

from gatenorm_stream.formats.vllm_served import SERVED
from gatenorm_stream.runtime.vllm_backend import PrunedBackend, constant
from gatenorm_stream.runtime.vllm_configs import pruned_name

NAMED_OTHERWISE = {"GptOssForCausalLM": "attn"}
"""What vLLM's class calls a layer's attention, where transformers' has another name for it."""
RETURN_PAIRS = ("FalconForCausalLM",)
"""Whose attention returns its bias, which is added once all processes have added up its output, beside that."""


class NoAttention(torch.nn.Module):
    """Zeros in the shape of the hidden states, which it takes from where the attention that it replaces does.

    With `width`, a constant vector, which is loaded by this name.
    """

    def __init__(self, replaced: torch.nn.Module, pair: bool, width: int | None):
        super().__init__()
        self.constant = constant(width)
        self.pair = pair
        self.position = list(inspect.signature(replaced.forward).parameters).index("hidden_states")

    def forward(self, *args: torch.Tensor, **kwargs: torch.Tensor) -> Any:
        hidden_states = kwargs["hidden_states"] if "hidden_states" in kwargs else args[self.position]
        zeros = torch.zeros_like(hidden_states)
        if self.pair:
            return zeros, self.constant
        return zeros if self.constant is None else zeros + self.constant


class NoNorm(torch.nn.Module):
    """Stands for a norm that is not needed: where vLLM lets the norm add the residual, it still does."""

    def forward(self, x: torch.Tensor, residual: torch.Tensor | None = None) -> Any:
        if residual is None:
            return x
        x = x + residual
        return x, x


class Pruned:
    """What a pruned model does beyond its stock class (mixed in before it)."""

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = ""):
        form = vllm_config.model_config.hf_config.gatenorm
        architecture, input_norm = form["architecture"], form["input_norm"]
        attention = NAMED_OTHERWISE.get(architecture, form["attention"])
        pair = architecture in RETURN_PAIRS
        width = vllm_config.model_config.get_hidden_size() if form.get("constants") else None

        def replacement(module: torch.nn.Module) -> NoAttention:
            return NoAttention(module, pair, width)

        with _left_out(vllm_config, form["layers"], attention, form["pruned_layers"], replacement):
            super().__init__(vllm_config=vllm_config, prefix=prefix)
        layers = self.get_submodule(form["layers"])
        for index in form["pruned_layers"]:
            layer = layers[index]
            if isinstance(layer, PPMissingLayer):
                continue
            if not isinstance(getattr(layer, attention, None), NoAttention):
                raise RuntimeError(f"this vLLM builds {architecture} in a way that gatenorm-stream can't prune")
            if input_norm is not None:
                setattr(layer, input_norm, NoNorm())


@contextmanager
def _left_out(
    vllm_config: VllmConfig,
    layers: str,
    attention: str,
    pruned: list[int],
    replacement: Callable[[torch.nn.Module], torch.nn.Module],
) -> Iterator[None]:
    """While it lasts, attention modules of the pruned layers are replaced at the moment they become a layer's part.

    vLLM's attention layers enter themselves, by their full names, in the compilation config's
    `static_forward_context`: that tells whose attention a module is, and there it is taken out again.
    """
    known = vllm_config.compilation_config.static_forward_context
    prefixes = tuple(f"{layers}.{index}.{attention}." for index in pruned)

    def replace(layer: torch.nn.Module, name: str, module: torch.nn.Module | None) -> torch.nn.Module | None:
        if name != attention or module is None or isinstance(module, AttentionLayerBase):
            return None
        kernels = [part.layer_name for part in module.modules() if isinstance(part, AttentionLayerBase)]
        if not any(kernel.startswith(prefixes) for kernel in kernels):
            return None
        for kernel in kernels:
            del known[kernel]
        return replacement(module)

    hook = register_module_module_registration_hook(replace)
    try:
        yield
    finally:
        hook.remove()


def __getattr__(name: str) -> type:
    architecture = name.partition("@")[0]
    if architecture not in SERVED:
        raise AttributeError(name)
    stock = ModelRegistry.models[architecture].load_model_cls()
    mixin = PrunedBackend if issubclass(stock, Base) else Pruned
    made = type(pruned_name(architecture), (mixin, stock), {"__module__": __name__})
    globals()[name] = made
    return made
