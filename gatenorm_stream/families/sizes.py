"""Numbers of a config.json, under any of the names that architectures give them."""

from __future__ import annotations

import math

from gatenorm_stream.checkpoint.tensors import shown
from gatenorm_stream.errors import CheckpointError
from gatenorm_stream.families.family import Config

SYNONYMS = {
    "num_hidden_layers": ("n_layer", "num_layers"),
    "hidden_size": ("n_embd", "d_model"),
    "num_attention_heads": ("n_head", "num_heads"),
    "num_key_value_heads": ("num_kv_heads", "n_head_kv"),
}

SMALLEST, LARGEST = 1e-20, 1e20
"""Of numbers that are multiplied, divided and taken logarithms of: what comes out stays a float."""
MOST_LAYERS = 1 << 12
MOST_HEADS = 1 << 16
MOST_HEADS_IN_ALL = 1 << 15
"""Each of them is laid out before a byte is read, and takes time however small it is: twice Llama 3.1 405B's."""


def size(config: Config, key: str, where: str, default: int | None = None) -> int:
    """A positive integer. Raises CheckpointError, naming the file `where`, if it is missing or something else."""
    value = next((v for k in (key, *SYNONYMS.get(key, ())) if (v := config.get(k)) is not None), default)
    if type(value) is not int or value < 1:
        raise CheckpointError(f"{where} has {key}={value!r}, which must be a positive integer; restore it")
    if key == "num_attention_heads" and value > MOST_HEADS:
        raise CheckpointError(f"{where} has {key}={value}, more than any model has; restore it")
    return value


def check_counts(layers: int, heads: int, where: str) -> None:
    """Raises CheckpointError for more layers, or `heads` of all of them together, than are laid out."""
    if layers > MOST_LAYERS:
        raise CheckpointError(f"{where} has {layers} layers, and at most {MOST_LAYERS} are taken; restore it")
    if heads > MOST_HEADS_IN_ALL:
        raise CheckpointError(
            f"{where} has {heads} heads in {layers} layers, and at most {MOST_HEADS_IN_ALL} are taken; restore it"
        )


def optional_size(config: Config, key: str, where: str) -> int | None:
    """None if the config does not say. Raises CheckpointError if it gives something other than a size."""
    if all(config.get(k) is None for k in (key, *SYNONYMS.get(key, ()))):
        return None
    return size(config, key, where)


def number_above(least: float, value: object, key: str, where: str) -> float:
    """Raises CheckpointError, naming the file `where`, if it is no number above `least` that a model could have."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not least < value < math.inf:
        raise CheckpointError(
            f"{where} has {key}={shown(value)}, which must be a number above {least:g}; restore it"
        )
    if not SMALLEST <= value <= LARGEST:
        raise CheckpointError(
            f"{where} has {key}={shown(value)}, and {SMALLEST:g} to {LARGEST:g} are taken; restore it"
        )
    return float(value)
