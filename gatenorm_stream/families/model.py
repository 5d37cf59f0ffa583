"""A checkpoint read through the row of its family."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NoReturn

from gatenorm_stream.checkpoint.tensors import Checkpoint
from gatenorm_stream.errors import CheckpointError, UnsupportedModelError
from gatenorm_stream.families.family import Config, Family
from gatenorm_stream.families.heads import Heads
from gatenorm_stream.families.naming import check_names_are_the_models
from gatenorm_stream.families.pruned import (
    CONSTANT,
    OURS,
    REFUSED,
    check_absence,
    pruned_layers,
    with_config_of_source,
)
from gatenorm_stream.families.scope import Scope
from gatenorm_stream.families.sizes import check_counts, size
from gatenorm_stream.families.sublayers import Attention, read_attention, switched_off
from gatenorm_stream.families.table import FAMILIES
from gatenorm_stream.families.wrappers import WRAPPERS

TEXT_PARTS = ("language_model", "text_model")
"""Modules of a multimodal model that hold its language model."""


@dataclass(frozen=True)
class Model:
    """A checkpoint of a known family.

    `prefix` stands before a layer's number in tensor names. `text` is the config, or of a multimodal model the part
    of it that tells of the language model. `attention` has one entry for each layer with softmax attention. In an
    output of ours, `pruned` names those whose attention is gone.
    """

    checkpoint: Checkpoint
    family: Family
    text: Config
    prefix: str
    layers: int
    hidden: int
    attention: tuple[Attention, ...]
    pruned: tuple[int, ...] = ()

    @property
    def config(self) -> Mapping[str, Any]:
        return self.checkpoint.config

    @property
    def multimodal(self) -> bool:
        return self.config.get("model_type") != self.family.model_type

    @property
    def heads(self) -> Heads:
        return self.attention[0].heads

    @property
    def unread(self) -> str | None:
        """Why it can't be scored or run, if its weights are packed in a way that is not read here."""
        return next((a.unread for a in self.attention if a.unread), None)

    def kv_bytes_per_token(self, dropped: Iterable[int] = ()) -> int:
        """Bytes of KV cache for one token, 16 bits a number, without the sublayers in `dropped`."""
        gone = set(dropped)
        return sum(2 * a.kv_width for a in self.attention if a.layer not in gone)

    def attention_tensors(self, layer: int) -> tuple[str, ...]:
        """Names of all tensors that serve only this layer's attention sublayer, its input norm included."""
        attention, norm = f"{self.family.attention}{self.family.separator}", self.family.input_norm
        parts = (attention, f"{norm}.") if norm else (attention,)
        begun = tuple(f"{self.prefix}{layer}.{part}" for part in parts)
        return tuple(name for name in self._by_layer.get(str(layer), ()) if name.startswith(begun))

    def output_projection(self, layer: int) -> tuple[str, ...]:
        """Names of this layer's output projection: its weight, and its bias if it has one.

        What else a quantised one has stays as it is: with a scale of activations that is zero, an engine would
        divide by it.
        """
        module, tensors = self.output_module(layer), self.checkpoint.tensors
        return tuple(name for name in (f"{module}.weight", f"{module}.bias") if name in tensors)

    def output_module(self, layer: int) -> str:
        """What the names of its tensors begin with."""
        family = self.family
        return f"{self.prefix}{layer}.{family.attention}{family.separator}{family.output}"

    def constant_name(self, layer: int) -> str:
        """Of the tensor that the format `transformers` puts in the place of this layer's attention."""
        return f"{self.prefix}{layer}.{self.family.attention}.{CONSTANT}"

    @cached_property
    def _by_layer(self) -> Mapping[str, Sequence[str]]:
        """Names of tensors by the number of their layer, each list in the checkpoint's order."""
        found = defaultdict[str, list[str]](list)
        for name in self.checkpoint.tensors:
            if name.startswith(self.prefix):
                found[name[len(self.prefix) :].partition(".")[0]].append(name)
        return found


def read_model(checkpoint: Checkpoint, *, pruned: bool = False) -> Model:
    """Reads `checkpoint` through the row of its family; with `pruned`, an output of ours too.

    Weights that are packed are told by `Model.unread`. Raises UnsupportedModelError for an unknown architecture,
    CheckpointError if the config or the projections are missing or contradict each other.
    """
    where, title, ours = checkpoint.config_where, checkpoint.source.title, checkpoint.config.get(OURS)
    if OURS in checkpoint.config:
        if not pruned:
            raise UnsupportedModelError(f"{title} {REFUSED}")
        checkpoint = with_config_of_source(checkpoint)
    family, text = _family(checkpoint)
    layers, hidden = size(text, "num_hidden_layers", where), size(text, "hidden_size", where)
    if layers > len(checkpoint.tensors):
        raise CheckpointError(
            f"{where} has num_hidden_layers={layers}, but there are only {len(checkpoint.tensors)} tensors; "
            "one of them is wrong, restore it"
        )
    check_counts(layers, layers * size(text, "num_attention_heads", where, 1), where)
    prefix = layers_prefix(checkpoint.tensors, family)
    gone = pruned_layers(ours.get("pruned_layers"), layers, f"{OURS}.pruned_layers", where) if ours else ()
    check_names_are_the_models(checkpoint.tensors, prefix, family, title)
    check_absence(checkpoint.tensors, prefix, family, gone, title)
    there = _with_query(checkpoint.tensors, prefix, family) if family.hybrid else frozenset()
    attention = tuple(
        read_attention(Scope(checkpoint, text, where, f"{prefix}{layer}.{family.attention}."), family, layer)
        for layer in sorted(set(range(layers)) - set(gone))
        if not family.hybrid or (layer in there and not switched_off(text, layer))
    )
    if not attention:
        raise CheckpointError(f"{title} has no layer with softmax attention; restore it")
    return Model(checkpoint, family, text, prefix, layers, hidden, attention, gone)


def _with_query(names: Iterable[str], prefix: str, family: Family) -> frozenset[int]:
    """The layers that have a query projection, however it is stored."""
    module = rf"{re.escape(family.attention)}\.{re.escape(family.query)}\."
    query = re.compile(rf"{re.escape(prefix)}([0-9]{{1,9}})\.{module}")
    return frozenset(int(match[1]) for name in names if (match := query.match(name)))


def layers_prefix(names: Iterable[str], family: Family) -> str:
    """What stands before a layer's number in the names of a checkpoint's tensors.

    Mostly the path of the layers in the model's class. Some checkpoints leave out its first part, those that answer
    questions call it otherwise, and multimodal ones put the language model's name before it.
    """
    layers = family.layers.partition(".")[2]
    pattern = re.compile(rf"((?:.+\.)?{re.escape(layers)}\.)\d+\.{re.escape(family.attention)}\.")
    found = {match[1] for name in names if (match := pattern.match(name))}
    nested = sorted(p for p in found if set(p.split(".")) & set(TEXT_PARTS))
    likely = (f"{family.layers}.", f"{layers}.", f"transformer.{layers}.", *nested)
    return next((prefix for prefix in likely if prefix in found), f"{family.layers}.")


def _family(checkpoint: Checkpoint) -> tuple[Family, Config]:
    """The row, and the config that tells of the language model."""
    config = checkpoint.config
    rows = {row.model_type: row for row in FAMILIES}
    text = config.get("text_config")
    model_type = config.get("model_type")
    if isinstance(model_type, str) and model_type in rows:
        return rows[model_type].of(config), config
    if isinstance(text, dict) and isinstance(text.get("model_type"), str) and text["model_type"] in rows:
        row = rows[text["model_type"]]
        text = {**row.defaults, **{k: v for k, v in text.items() if v is not None}}
        return row.of(text), text
    if (wrapper := WRAPPERS.get(str(model_type))) and wrapper.family:
        text = text if isinstance(text, dict) else config
        return rows[wrapper.family].of(text), text
    _unknown(checkpoint, text)


def _unknown(checkpoint: Checkpoint, text: object) -> NoReturn:
    inner = f" with text_config.model_type={text.get('model_type')!r}" if isinstance(text, dict) else ""
    model_type = checkpoint.config.get("model_type")
    raise UnsupportedModelError(
        f"{checkpoint.config_where} has model_type={model_type!r}{inner}, which is not known; "
        "`gatenorm-stream families` lists what is, and CONTRIBUTING.md shows how a row is added"
    )
