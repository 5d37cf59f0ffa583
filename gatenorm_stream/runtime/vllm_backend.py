"""vLLM's Transformers backend with attention left out of the pruned layers.

vLLM has no class of its own for some architectures and builds the model of transformers, unallocated, to exchange
its linear layers, norms and attention for vLLM's. Pruned layers lose theirs before that. The backend demands an
attention of every layer; so it is shown an empty one there, whose KV cache is taken back at once.
"""

from __future__ import annotations

from typing import Any

import torch
from vllm.model_executor.models.transformers.base import VLLM_ATTN_ATTR
from vllm.model_executor.models.utils import PPMissingLayer


def constant(width: int | None) -> torch.nn.Parameter | None:
    """In the dtype and on the device on which vLLM is building its model."""
    return None if width is None else torch.nn.Parameter(torch.zeros(width), requires_grad=False)


class NoAttentionPair(torch.nn.Module):
    """Zeros in the shape of the hidden states, and no attention weights: what attention returns in transformers.

    With `width`, a constant vector, which is loaded by this name.
    """

    def __init__(self, width: int | None):
        super().__init__()
        self.constant = constant(width)

    def forward(self, hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> tuple[torch.Tensor, None]:
        zeros = torch.zeros_like(hidden_states)
        return (zeros if self.constant is None else zeros + self.constant), None


class NoKernel:
    """What the backend asks of an attention: nothing particular."""

    def scale(self, module: torch.nn.Module) -> float:
        return 1.0

    def sinks(self, module: torch.nn.Module) -> None:
        return None


class PrunedBackend:
    """What a pruned model does beyond the backend's class (mixed in before it)."""

    def pipeline_parallel(self) -> None:
        super().pipeline_parallel()
        form = self.config.gatenorm
        self._pruned: dict[int, str] = {}
        path = f"model.{form['layers'].partition('.')[2]}"
        width = self.text_config.hidden_size if form.get("constants") else None
        for index in form["pruned_layers"]:
            layer = self.get_submodule(f"{path}.{index}")
            if isinstance(layer, PPMissingLayer):
                continue
            setattr(layer, form["attention"], NoAttentionPair(width))
            if form["input_norm"] is not None:
                setattr(layer, form["input_norm"], torch.nn.Identity())
            self._pruned[index] = f"{path}.{index}.{form['attention']}"

    def _create_attention_instances(self, prefix: str = "") -> None:
        self.attention_fusers |= {index: (name, NoKernel()) for index, name in self._pruned.items()}
        super()._create_attention_instances(prefix)
        for name in self._pruned.values():
            attention = self.get_submodule(name)
            del self.compilation_config.static_forward_context[getattr(attention, VLLM_ATTN_ATTR).layer_name]
            delattr(attention, VLLM_ATTN_ATTR)
