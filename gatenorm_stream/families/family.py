"""What a row of the table of families says."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

Config: TypeAlias = Mapping[str, Any]
Packing: TypeAlias = Literal["separate", "blocks", "groups"]


@dataclass(frozen=True)
class Family:
    """How an architecture names the parts of a decoder layer; the defaults are Llama's.

    `layers` is the path of the list of layers within the model's class, and so the prefix of their tensors.
    `attention` and the names below it are modules of a layer: `query`, `key` and `output` within `attention`,
    `input_norm` beside it. `input_norm` is the norm that serves attention alone, and goes with it;
    None if the MLP reads it too (parallel blocks) or there is none.

    `packing` says how q and k are stored, each head's rows being `dim` rows of (out, in):
        separate   in `query` and in `key`
        blocks     in `query`: all query heads, then all key heads, then all value heads
        groups     in `query`: for each key head its query heads, then itself, then its value head
    """

    name: str
    model_type: str
    architecture: str
    layers: str = "model.layers"
    attention: str = "self_attn"
    separator: str = "."
    """Between the attention's name and those of its parts."""
    query: str = "q_proj"
    key: str = "k_proj"
    output: str = "o_proj"
    input_norm: str | None = "input_layernorm"
    packing: Packing = "separate"
    transposed: bool = False
    """Stored (in, out), as transformers' Conv1D does: heads are columns."""
    output_norm: str | None = None
    """The norm that what attention puts out goes through before it is added to the stream, if there is one."""
    gated: bool = False
    """In `query`, each head is followed by as many rows of an output gate."""
    latent: bool = False
    """Keys (and mostly queries) are computed from a compressed latent: DeepSeek's MLA."""
    hybrid: bool = False
    """Only some layers have softmax attention: those whose query projection is there."""
    output_bias: str | bool = "attention_bias"
    """The config's key that gives the output projection a bias, or whether it has one. A bias that the config
    switches off may be in the file all the same: no engine adds it."""
    biased_by_default: bool = False
    """Where the config does not have that key."""
    llama_shaped: bool = False
    """The layer computes what Llama's does, biases apart: DeciLM can express it."""
    stock: bool = True
    """transformers has a class for it."""
    kv_heads: int | None = None
    """If config.json does not tell."""
    defaults: Mapping[str, int] = field(default_factory=dict)
    """What the stock config class takes where config.json is silent."""
    variant: Callable[[Family, Config], Family] | None = None
    """The row that holds for a config, where the config changes it."""
    note: str = ""
    """What people should know of it, for the table that `families` prints."""

    def has_output_bias(self, config: Config) -> bool:
        """Whether the stock class adds one, whatever the file holds."""
        if isinstance(self.output_bias, bool):
            return self.output_bias
        found = config.get(self.output_bias)
        return self.biased_by_default if found is None else bool(found)

    def of(self, config: Config) -> Family:
        return self.variant(self, config) if self.variant else self
