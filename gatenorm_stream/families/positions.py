"""What a Llama-shaped model's config.json says of positions: rotary parameters and sliding window."""

from __future__ import annotations

from typing import Any

from gatenorm_stream.errors import CheckpointError
from gatenorm_stream.families.model import Model

CONTEXT = ("max_position_embeddings", "n_positions", "max_seq_len", "n_ctx", "seq_length")
"""What architectures call the number of positions."""


def rope_parameters(model: Model) -> dict[str, Any]:
    """Rotary parameters in the form of transformers 5, from either form of config.json."""
    config = model.config
    given = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if not isinstance(given, dict):
        raise CheckpointError(f"{model.checkpoint.config_where} has rope parameters that are no object")
    kind = given.get("rope_type") or given.get("type") or "default"
    thetas = (given.get("rope_theta"), config.get("rope_theta"), 10000.0)
    theta = next(value for value in thetas if value is not None)
    return {**{k: v for k, v in given.items() if k != "type"}, "rope_type": kind, "rope_theta": theta}


def context_length(model: Model) -> int | None:
    """The most tokens that the model was made to read at once; None where the checkpoint does not say."""
    architecture = model.text.get("general.architecture")
    names = (f"{architecture}.context_length",) if architecture else CONTEXT
    found = next((model.text[name] for name in names if model.text.get(name) is not None), None)
    return found if type(found) is int and found > 0 else None


def sliding_window(model: Model) -> int | None:
    """How many tokens, itself included, a token attends to where attention slides; None if it does not."""
    config = model.config
    if not config.get("use_sliding_window", model.family.model_type != "qwen2"):
        return None
    window = config.get("sliding_window", model.family.defaults.get("sliding_window"))
    if window is not None and type(window) is not int:
        raise CheckpointError(f"{model.checkpoint.config_where} has sliding_window={window!r}; restore it")
    return window
