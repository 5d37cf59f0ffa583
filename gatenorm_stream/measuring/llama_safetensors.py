"""A safetensors checkpoint of a family that is shaped like Llama, as `Llama`: from headers and config alone."""

from __future__ import annotations

from typing import Any, NoReturn

from gatenorm_stream.checkpoint.tensors import Tensor, shown
from gatenorm_stream.errors import CheckpointError, UnsupportedModelError
from gatenorm_stream.families import sublayers
from gatenorm_stream.families.model import Model
from gatenorm_stream.families.positions import rope_parameters, sliding_window
from gatenorm_stream.families.projections import Weight
from gatenorm_stream.families.scales import FLOAT_DTYPES
from gatenorm_stream.families.scope import Scope
from gatenorm_stream.families.sizes import number_above, size
from gatenorm_stream.families.weights import find_tensor, read_weight
from gatenorm_stream.measuring.llama import Attention, Layer, Linear, Llama
from gatenorm_stream.measuring.rotary import Llama3, Rotary, Yarn, yarn_gain

EPSILON = 1e-6
"""What the stock classes take where config.json is silent."""
WINDOWED_FROM = 28
"""The first layer whose attention slides in a Qwen 2, where config.json is silent."""
SPECIAL_YARN = ("mscale", "mscale_all_dim", "truncate")
"""What other families give YaRN."""


def read_safetensors(model: Model) -> Llama:
    """Raises UnsupportedModelError for what is not shaped like Llama, CheckpointError if a tensor is missing."""
    config, where = model.config, model.checkpoint.config_where
    if model.multimodal or not model.family.llama_shaped:
        _unsupported(model, f"model_type={config.get('model_type')}")
    activation = config.get("hidden_act", "silu")
    if activation not in ("silu", "swish"):
        _unsupported(model, f"hidden_act={shown(activation)}")
    beside = model.prefix.removesuffix("layers.")
    embedding = _table(model, f"{beside}embed_tokens")
    tied = bool(config.get("tie_word_embeddings", False))
    own_head = not tied or "lm_head.weight" in model.checkpoint.tensors
    return Llama(
        model.checkpoint.source,
        model.hidden,
        _number(config.get("rms_norm_eps"), "rms_norm_eps", where, EPSILON),
        _rotary(model),
        _layers(model),
        embedding,
        _norm(_scope(model, beside), "norm", model.hidden),
        _table(model, "lm_head") if own_head else embedding,
    )


def _layers(model: Model) -> tuple[Layer, ...]:
    config, hidden = model.config, model.hidden
    width = size(config, "intermediate_size", model.checkpoint.config_where)
    biased = bool(config.get("mlp_bias", False)) and model.family.model_type == "llama"
    attention = {found.layer: _attention(model, found) for found in model.attention}
    layers = []
    for layer in range(model.layers):
        scope = _scope(model, f"{model.prefix}{layer}.")
        gate, up, down = (
            Linear(read_weight(scope, f"mlp.{part}_proj", shape), _bias(scope, f"mlp.{part}_proj", biased))
            for part, shape in (("gate", (width, hidden)), ("up", (width, hidden)), ("down", (hidden, width)))
        )
        norm = _norm(scope, "post_attention_layernorm", hidden)
        layers.append(Layer(attention.get(layer), norm, gate, up, down, _constant(model, layer)))
    return tuple(layers)


def _attention(model: Model, found: sublayers.Attention) -> Attention:
    scope, heads, hidden = _scope(model, f"{model.prefix}{found.layer}."), found.heads, model.hidden
    biases, weights = _attention_biases(model), {"q": found.query.weight, "k": found.key.weight}
    weights["v"] = read_weight(scope, "self_attn.v_proj", (heads.keys * heads.dim, hidden))
    weights["o"] = read_weight(scope, "self_attn.o_proj", (hidden, heads.queries * heads.dim))
    query, key, value, output = (
        Linear(weight, _bias(scope, f"self_attn.{part}_proj", part in biases)) for part, weight in weights.items()
    )
    norm = _norm(scope, "input_layernorm", hidden)
    return Attention(heads, norm, query, key, value, output, _window(model, found.layer))


def _constant(model: Model, layer: int) -> Tensor | None:
    """What stands in the place of this layer's attention, if there is anything."""
    found = model.checkpoint.tensors.get(model.constant_name(layer)) if layer in model.pruned else None
    return _checked(_scope(model, ""), found, model.hidden) if found else None


def _attention_biases(model: Model) -> str:
    """The parts of attention in which the stock class has biases."""
    if model.family.model_type == "qwen2":
        return "qkv"
    return "qkvo" if model.family.model_type == "llama" and model.config.get("attention_bias") else ""


def _norm(scope: Scope, module: str, hidden: int) -> Tensor:
    return _checked(scope, find_tensor(scope, module), hidden)


def _checked(scope: Scope, tensor: Tensor, length: int) -> Tensor:
    if tensor.dtype not in FLOAT_DTYPES or tensor.shape != (length,):
        raise CheckpointError(
            f"{tensor.name} in {scope.checkpoint.source.title} is {tensor.dtype} of {list(tensor.shape)}, but "
            f"{scope.where} calls for {[length]}; one of them is wrong, restore it"
        )
    return tensor


def _bias(scope: Scope, module: str, switched_on: bool) -> Tensor | None:
    """None if there is none, or the stock class would leave it out."""
    weight = find_tensor(scope, module)
    bias = scope.checkpoint.tensors.get(f"{scope.prefix}{module}.bias")
    if bias is None or not switched_on:
        return None
    if bias.dtype not in FLOAT_DTYPES or bias.shape != weight.shape[:1]:
        raise CheckpointError(
            f"{bias.name} in {scope.checkpoint.source.title} is {bias.dtype} of {list(bias.shape)}, but "
            f"{weight.name} has {weight.shape[0]} rows; one of them is wrong, restore it"
        )
    return bias


def _table(model: Model, module: str) -> Weight:
    """A matrix with a row for each token; its own shape says how many."""
    scope = _scope(model, "")
    tensor = find_tensor(scope, module)
    return read_weight(scope, module, (tensor.shape[0] if tensor.shape else 0, model.hidden))


def _window(model: Model, layer: int) -> int | None:
    window = sliding_window(model)
    if window is not None and window < 1:
        raise CheckpointError(f"{model.checkpoint.config_where} has sliding_window={window}; restore it")
    if window is None or model.family.model_type != "qwen2":
        return window
    types = model.config.get("layer_types")
    if isinstance(types, list) and layer < len(types):
        return window if types[layer] == "sliding_attention" else None
    first = model.config.get("max_window_layers", WINDOWED_FROM)
    return window if type(first) is int and layer >= first else None


def _rotary(model: Model) -> Rotary:
    rope, where, dim = rope_parameters(model), model.checkpoint.config_where, model.heads.dim
    for share in (rope.get("partial_rotary_factor"), model.config.get("partial_rotary_factor")):
        if share not in (None, 1):
            _unsupported(model, f"partial_rotary_factor={shown(share)}")
    if dim % 2:
        _unsupported(model, f"head_dim={dim}")
    base = _number(rope["rope_theta"], "rope_theta", where, above=1)
    kind = rope["rope_type"]
    if kind == "default":
        return Rotary(dim, base)
    if kind not in ("linear", "llama3", "yarn"):
        _unsupported(model, f"rope_type={shown(kind)}")
    factor = _number(rope.get("factor"), "factor", where)
    if kind == "linear":
        return Rotary(dim, base, factor=factor)
    if kind == "llama3":
        return Rotary(dim, base, factor=factor, scaling=_llama3(model, rope))
    if special := next((key for key in SPECIAL_YARN if rope.get(key) is not None), None):
        _unsupported(model, f"{special}={shown(rope[special])}")
    yarn = Yarn(
        _context(model, rope),
        _number(rope.get("beta_fast"), "beta_fast", where, 32.0),
        _number(rope.get("beta_slow"), "beta_slow", where, 1.0),
    )
    gain = _number(rope.get("attention_factor"), "attention_factor", where, yarn_gain(factor))
    return Rotary(dim, base, factor=factor, scaling=yarn, gain=gain)


def _llama3(model: Model, rope: dict[str, Any]) -> Llama3:
    where = model.checkpoint.config_where
    low, high = (_number(rope.get(key), key, where) for key in ("low_freq_factor", "high_freq_factor"))
    if high <= low:
        raise CheckpointError(f"{where} has high_freq_factor={high}, not above low_freq_factor; restore it")
    return Llama3(low, high, _context(model, rope))


def _context(model: Model, rope: dict[str, Any]) -> float:
    key = "original_max_position_embeddings"
    where, whole = model.checkpoint.config_where, model.config.get("max_position_embeddings")
    return _number(rope.get(key, whole), key, where)


def _number(value: object, key: str, where: str, default: float | None = None, above: float = 0.0) -> float:
    return number_above(above, default if value is None else value, key, where)


def _scope(model: Model, prefix: str) -> Scope:
    return Scope(model.checkpoint, model.text, model.checkpoint.config_where, prefix)


def _unsupported(model: Model, what: str) -> NoReturn:
    raise UnsupportedModelError(f"{model.checkpoint.config_where} has {what}, which numpy does not run")
