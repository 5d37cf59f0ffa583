"""What stands in a stock layer where an output of ours has no attention."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from gatenorm_stream.errors import CheckpointError
from gatenorm_stream.families.model import Model
from gatenorm_stream.families.pruned import CONSTANT


def leave_attention_out(model: Model, layers: torch.nn.ModuleList) -> None:
    """Of the stock `layers`, those that `model.pruned` names lose attention and the norm that serves it alone.

    Raises CheckpointError if there never was any.
    """
    family = model.family
    for number in model.pruned:
        layer = layers[number]
        if not isinstance(getattr(layer, family.attention, None), torch.nn.Module):
            raise CheckpointError(
                f"{model.checkpoint.config_where} says that layer {number} lost its attention, but such layers of "
                f"{family.name} have none; restore it"
            )
        absent = torch.nn.Module()
        if model.constant_name(number) in model.checkpoint.tensors:
            held = torch.empty(model.hidden, device="meta")
            absent.register_parameter(CONSTANT, torch.nn.Parameter(held, requires_grad=False))
        absent.forward = partial(_put_out, absent)
        setattr(layer, family.attention, absent)
        if family.input_norm:
            setattr(layer, family.input_norm, torch.nn.Identity())


def _put_out(absent: torch.nn.Module, hidden_states: torch.Tensor, *_: Any, **__: Any) -> tuple[torch.Tensor, None]:
    """The same at every token: the constant, (width,), or zeros if there is none."""
    output = torch.zeros_like(hidden_states)
    constant = absent._parameters.get(CONSTANT)
    return (output if constant is None else output + constant), None
