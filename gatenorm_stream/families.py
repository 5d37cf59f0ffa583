"""The architectures that are known, one row each, and a checkpoint read through its row.

A row says how an architecture names the parts of a layer. Adding a family is adding a row and a test.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from gatenorm_stream.checkpoint.open import Checkpoint, Tensor
from gatenorm_stream.errors import CheckpointError, UnsupportedModelError

FLOAT_DTYPES = ("F64", "F32", "F16", "BF16")


@dataclass(frozen=True)
class Family:
    """`layer` is the prefix of layer i's tensors; the other names continue it."""

    model_type: str
    architecture: str
    layer: str = "model.layers.{}."
    attention: str = "self_attn."
    query: str = "self_attn.q_proj.weight"
    key: str = "self_attn.k_proj.weight"
    output: str = "self_attn.o_proj."
    input_norm: str = "input_layernorm."
    sliding_window_default: int | None = None
    """What the stock config class takes if config.json has no `sliding_window`."""


FAMILIES = (
    Family("llama", "LlamaForCausalLM"),
    Family("mistral", "MistralForCausalLM", sliding_window_default=4096),
)


@dataclass(frozen=True)
class Model:
    """A checkpoint of a known family. Query and key projections are stored (heads * head_dim, hidden)."""

    checkpoint: Checkpoint
    family: Family
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    queries: tuple[Tensor, ...]
    keys: tuple[Tensor, ...]

    @property
    def config(self) -> Mapping[str, Any]:
        return self.checkpoint.config

    @property
    def kv_bytes_per_token(self) -> int:
        """Bytes of KV cache that one attention sublayer holds for one token, 16 bits an element."""
        return 2 * self.kv_heads * self.head_dim * 2

    def attention_tensors(self, layer: int) -> tuple[str, ...]:
        """Names of all tensors that serve only this layer's attention sublayer, its input norm included."""
        prefix = self.family.layer.format(layer)
        return self._named((prefix + self.family.attention, prefix + self.family.input_norm))

    def output_projection(self, layer: int) -> tuple[str, ...]:
        """Names of this layer's output projection: its weight, and its bias if it has one."""
        return self._named((self.family.layer.format(layer) + self.family.output,))

    def _named(self, prefixes: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(name for name in self.checkpoint.tensors if name.startswith(prefixes))


def read_model(checkpoint: Checkpoint) -> Model:
    """Reads `checkpoint` through the row of its family.

    Raises UnsupportedModelError for an unknown architecture or quantised weights, CheckpointError if the config
    or the projections are missing or contradict each other.
    """
    config, where = checkpoint.config, f"{checkpoint.source.title}/config.json"
    model_type = config.get("model_type")
    family = next((f for f in FAMILIES if f.model_type == model_type), None)
    if family is None:
        _unknown(checkpoint, where)
    if config.get("quantization_config") is not None:
        quantised = config["quantization_config"]
        method = quantised.get("quant_method") if isinstance(quantised, dict) else None
        raise UnsupportedModelError(
            f"{where} says the weights are quantised ({method or 'method not named'}); "
            "use the unquantised safetensors form of this model"
        )

    def size(key: str, default: int | None = None) -> int:
        value = config.get(key)
        value = default if value is None else value
        if type(value) is not int or value < 1:
            raise CheckpointError(f"{where} has {key}={value!r}, which must be a positive integer; restore it")
        return value

    layers, hidden, heads = size("num_hidden_layers"), size("hidden_size"), size("num_attention_heads")
    kv_heads = size("num_key_value_heads", heads)
    head_dim = size("head_dim", hidden // heads)
    if heads % kv_heads:
        raise CheckpointError(
            f"{where} has {heads} attention heads, not a multiple of its {kv_heads} KV heads; restore it"
        )

    queries, keys = [], []
    for layer in range(layers):
        prefix = family.layer.format(layer)
        queries.append(_projection(checkpoint, prefix + family.query, (heads * head_dim, hidden)))
        keys.append(_projection(checkpoint, prefix + family.key, (kv_heads * head_dim, hidden)))
    return Model(checkpoint, family, layers, hidden, heads, kv_heads, head_dim, tuple(queries), tuple(keys))


def _projection(checkpoint: Checkpoint, name: str, shape: tuple[int, int]) -> Tensor:
    tensor = checkpoint.tensors.get(name)
    if tensor is None:
        packed = [f"{name.removesuffix('weight')}{part}" for part in ("qweight", "weight_packed")]
        if any(p in checkpoint.tensors for p in packed):
            raise UnsupportedModelError(
                f"{checkpoint.source.title} holds packed, quantised weights ({packed[0].rsplit('.', 1)[0]}); "
                "use the unquantised safetensors form of this model"
            )
        raise CheckpointError(
            f"{checkpoint.source.title} has no {name}, which its config.json calls for; the checkpoint is "
            "incomplete (or attention was pruned before): start from the original model"
        )
    if tensor.dtype not in FLOAT_DTYPES:
        raise UnsupportedModelError(
            f"{name} in {checkpoint.source.title} is stored as {tensor.dtype}; scoring reads "
            f"{', '.join(FLOAT_DTYPES)}: use the unquantised safetensors form of this model"
        )
    if tensor.shape != shape:
        raise CheckpointError(
            f"{name} in {checkpoint.source.title} has shape {list(tensor.shape)}, but config.json calls for "
            f"{list(shape)}; one of them is wrong, restore it"
        )
    return tensor


def _unknown(checkpoint: Checkpoint, where: str) -> NoReturn:
    config = checkpoint.config
    known = ", ".join(f.model_type for f in FAMILIES)
    if "gatenorm" in config:
        raise UnsupportedModelError(
            f"{checkpoint.source.title} was pruned by gatenorm-stream already; start from the original model"
        )
    raise UnsupportedModelError(
        f"{where} has model_type={config.get('model_type')!r}, which is not known (known: {known}); "
        "--format zeroed keeps every shape and could serve it once a row in gatenorm_stream/families.py names "
        "its q, k and o projections (CONTRIBUTING.md shows how)"
    )
