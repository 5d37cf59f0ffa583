"""An output of ours, read as its source was, without the attention that is gone."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from itertools import pairwise

from gatenorm_stream.checkpoint.tensors import Checkpoint, shown
from gatenorm_stream.errors import CheckpointError
from gatenorm_stream.families.family import Family

OURS = "gatenorm"
"""The object in an output's config.json that says what was removed."""
REFUSED = "was pruned by gatenorm-stream already; start from the original model"
CONSTANT = "constant"
"""What the module in the place of attention calls its parameter."""
NOT_THE_SOURCES = (OURS, "architectures", "auto_map", "block_configs")
FLAT_ROPE = ("rope_theta", "rope_scaling")
"""Beside `block_configs` they say for mlx-lm what `rope_parameters` says for all others."""


def with_config_of_source(checkpoint: Checkpoint) -> Checkpoint:
    """With the config that transformers' stock class of the source reads: of its family, or of Llama where the
    output's biases need that. Raises CheckpointError if the output does not say what it was made of.
    """
    config, where = checkpoint.config, checkpoint.config_where
    ours = config[OURS]
    if not isinstance(ours, dict) or not isinstance(ours.get("model_type"), str):
        raise CheckpointError(f"{where} has {OURS}={shown(ours)}, which names no model_type; restore it")
    flat = FLAT_ROPE if {"block_configs", "rope_parameters"} <= config.keys() else ()
    left = {key: value for key, value in config.items() if key not in (*NOT_THE_SOURCES, *flat)}
    architecture = ours.get("architecture")
    source = {"architectures": [architecture]} if isinstance(architecture, str) else {}
    return replace(checkpoint, config={**left, **source, "model_type": ours["model_type"]})


def pruned_layers(found: object, layers: int, key: str, where: str) -> tuple[int, ...]:
    """What `key` of the file `where` says, checked. Raises CheckpointError."""
    numbers = found if isinstance(found, list) and all(type(layer) is int for layer in found) else [-1]
    if all(0 <= layer < layers for layer in numbers) and all(a < b for a, b in pairwise(numbers)):
        return tuple(numbers)
    raise CheckpointError(f"{where} has {key}={shown(found)}, which are no layers of {layers}; restore it")


def check_absence(names: Iterable[str], prefix: str, family: Family, pruned: tuple[int, ...], title: str) -> None:
    """Raises CheckpointError if a layer of `pruned` has attention after all: the name of one of its tensors."""
    attention = f"{family.attention}{family.separator}"
    constant = f"{family.attention}.{CONSTANT}"
    numbers = set(map(str, pruned))
    for name in names:
        number, _, part = name.removeprefix(prefix).partition(".")
        if name.startswith(prefix) and number in numbers and part.startswith(attention) and part != constant:
            raise CheckpointError(
                f"{title} says that layer {number} has no attention, but holds {name}; restore it"
            )
