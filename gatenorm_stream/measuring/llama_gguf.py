"""A GGUF file of an architecture that computes what Llama does, as `Llama`: from its header alone.

What is read of the metadata is what llama.cpp reads; it knows no sliding window in these architectures.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any, NoReturn

from gatenorm_stream.checkpoint.tensors import Tensor, shown
from gatenorm_stream.errors import CheckpointError, UnsupportedModelError
from gatenorm_stream.families import sublayers
from gatenorm_stream.families.gguf import ARCHITECTURE, LAYERS, check_matrix, scaled_matrix
from gatenorm_stream.families.model import Model
from gatenorm_stream.families.projections import Weight
from gatenorm_stream.families.sizes import number_above
from gatenorm_stream.families.unread import UnreadError
from gatenorm_stream.floats import STORED
from gatenorm_stream.formats.deci import DECI, HALVES, KNOWN_TENSORS, PAIRS
from gatenorm_stream.measuring.llama import Attention, Layer, Linear, Llama
from gatenorm_stream.measuring.rotary import Rotary, Yarn, yarn_gain

LLAMA_TENSORS = re.compile(rf"{KNOWN_TENSORS.pattern}|blk\.\d+\.ffn_(gate|up|down)\.(scale|input_scale)")
"""llama.cpp multiplies by factors of the MLP in this architecture only. Those of inputs serve their rounding."""
BASE = 10000.0
"""What llama.cpp takes where the metadata are silent."""


def read_gguf(model: Model) -> Llama:
    """Raises UnsupportedModelError for what is not shaped like Llama, CheckpointError if a tensor is missing."""
    architecture, ours = model.text[ARCHITECTURE], {DECI} if model.pruned else set()
    if architecture not in PAIRS | HALVES | ours:
        _unsupported(model, f"{ARCHITECTURE}={shown(architecture)}")
    known = LLAMA_TENSORS if architecture == "llama" else KNOWN_TENSORS
    if other := next((t for t in model.checkpoint.tensors if not known.fullmatch(t)), None):
        _unsupported(model, other)
    if len(model.attention) + len(model.pruned) != model.layers:
        _unsupported(model, "layers without attention")
    rotary = _rotary(model)
    embedding = _table(model, "token_embd")
    own_head = "output.weight" in model.checkpoint.tensors
    epsilon = _number(model, "attention.layer_norm_rms_epsilon", None)
    attention = {found.layer: _attention(model, found) for found in model.attention}
    return Llama(
        model.checkpoint.source,
        model.hidden,
        epsilon,
        rotary,
        tuple(_layer(model, layer, attention.get(layer)) for layer in range(model.layers)),
        embedding,
        _norm(model, "output_norm"),
        _table(model, "output") if own_head else embedding,
    )


def _attention(model: Model, found: sublayers.Attention) -> Attention:
    heads, hidden = found.heads, model.hidden
    prefix, queries, keys = f"{LAYERS}.{found.layer}.", heads.queries * heads.dim, heads.keys * heads.dim
    return Attention(
        heads,
        _norm(model, f"{prefix}attn_norm"),
        _linear(model, f"{prefix}attn_q", queries, hidden),
        _linear(model, f"{prefix}attn_k", keys, hidden),
        _linear(model, f"{prefix}attn_v", keys, hidden),
        _linear(model, f"{prefix}attn_output", hidden, queries),
    )


def _layer(model: Model, layer: int, attention: Attention | None) -> Layer:
    hidden, prefix = model.hidden, f"{LAYERS}.{layer}."
    up = _tensor(model, f"{prefix}ffn_up.weight")
    width = up.shape[0]
    return Layer(
        attention,
        _norm(model, f"{prefix}ffn_norm"),
        _linear(model, f"{prefix}ffn_gate", width, hidden),
        _linear(model, f"{prefix}ffn_up", width, hidden),
        _linear(model, f"{prefix}ffn_down", hidden, width),
    )


def _rotary(model: Model) -> Rotary:
    architecture, dim = model.text[ARCHITECTURE], model.heads.dim
    if any(a.heads.dim != dim for a in model.attention) or dim % 2:
        _unsupported(model, f"heads that are {sorted({a.heads.dim for a in model.attention})} wide")
    for name in ("rope.dimension_count", "attention.key_length", "attention.value_length"):
        if model.text.get(f"{architecture}.{name}", dim) != dim:
            _unsupported(model, f"{architecture}.{name}={shown(model.text[f'{architecture}.{name}'])}")
    if long := next((t for t in model.checkpoint.tensors if t.startswith("rope_factors_")), None):
        _unsupported(model, long)
    divisors = model.checkpoint.tensors.get("rope_freqs.weight")
    if divisors:
        _check_vector(model, divisors, dim // 2)
    base = _number(model, "rope.freq_base", BASE, above=1)
    rotary = Rotary(dim, base, architecture not in HALVES, divisors=divisors)
    kind = model.text.get(f"{architecture}.rope.scaling.type", "linear")
    if kind == "none":
        return rotary
    if kind not in ("linear", "yarn"):
        _unsupported(model, f"{architecture}.rope.scaling.type={shown(kind)}")
    older = f"{architecture}.rope.scaling.factor" not in model.text
    factor = _number(model, "rope.scale_linear" if older else "rope.scaling.factor", 1.0)
    rotary = replace(rotary, factor=factor)
    return replace(rotary, **_yarn(model, factor)) if kind == "yarn" else rotary


def _yarn(model: Model, factor: float) -> dict[str, Any]:
    """llama.cpp reads more of it for other architectures."""
    whole = _number(model, "context_length", None)
    scaling = Yarn(
        _number(model, "rope.scaling.original_context_length", whole),
        _number(model, "rope.scaling.yarn_beta_fast", 32.0),
        _number(model, "rope.scaling.yarn_beta_slow", 1.0),
    )
    return {"scaling": scaling, "gain": yarn_gain(factor) * _number(model, "rope.scaling.attn_factor", 1.0)}


def _linear(model: Model, name: str, rows: int, columns: int) -> Linear:
    tensor = _tensor(model, f"{name}.weight")
    check_matrix(model.checkpoint.source.title, tensor, rows, columns)
    bias = model.checkpoint.tensors.get(f"{name}.bias")
    if bias:
        _check_vector(model, bias, rows)
    return Linear(_read(model, tensor), bias)


def _table(model: Model, name: str) -> Weight:
    """A matrix with a row for each token; its own shape says how many."""
    tensor = _tensor(model, f"{name}.weight")
    check_matrix(model.checkpoint.source.title, tensor, tensor.shape[0], model.hidden)
    return _read(model, tensor)


def _read(model: Model, tensor: Tensor) -> Weight:
    """With the factor beside it. Raises UnsupportedModelError if its numbers can't be read."""
    weight = scaled_matrix(model.checkpoint, tensor)
    if weight.unread:
        raise UnreadError(weight.unread)
    return weight


def _norm(model: Model, name: str) -> Tensor:
    tensor = _tensor(model, f"{name}.weight")
    _check_vector(model, tensor, model.hidden)
    return tensor


def _check_vector(model: Model, tensor: Tensor, length: int) -> None:
    if tensor.dtype not in STORED or tensor.shape != (length,):
        raise CheckpointError(
            f"{tensor.name} in {model.checkpoint.source.title} is {tensor.dtype} of {list(tensor.shape)}, where "
            f"{length} plain numbers belong; it is damaged, download it again"
        )


def _tensor(model: Model, name: str) -> Tensor:
    if name not in model.checkpoint.tensors:
        raise CheckpointError(f"{model.checkpoint.source.title} has no {name}; it is incomplete, download it again")
    return model.checkpoint.tensors[name]


def _number(model: Model, key: str, default: float | None, above: float = 0.0) -> float:
    """Where the metadata say 0, `default` holds. Raises CheckpointError if it is no number above `above`."""
    name = f"{model.text[ARCHITECTURE]}.{key}"
    return number_above(above, model.text.get(name) or default, name, model.checkpoint.source.title)


def _unsupported(model: Model, what: str) -> NoReturn:
    raise UnsupportedModelError(f"{model.checkpoint.source.title} has {what}, which numpy does not run")
