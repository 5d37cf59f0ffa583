"""`no-op` in a GGUF file: attention really absent, as llama.cpp's architecture `deci` knows it.

The form has a number of heads for each layer, and 0 where there is no attention. Otherwise it computes what `llama`
does; what rotates its heads as halves instead of pairs is brought into pairs, whole rows at a time.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from gatenorm_stream.checkpoint.gguf_metadata import Value, integers, string
from gatenorm_stream.checkpoint.gguf_types import is_known
from gatenorm_stream.checkpoint.tensors import Tensor
from gatenorm_stream.errors import CheckpointError
from gatenorm_stream.families.gguf import ARCHITECTURE, MARK
from gatenorm_stream.families.heads import Heads
from gatenorm_stream.families.model import Model
from gatenorm_stream.formats.constants import PLAIN, added_as
from gatenorm_stream.formats.edit import Added, Constants, Edit, Format, Limits, Obstacle
from gatenorm_stream.formats.engines import EVERY_ENGINE, Engine
from gatenorm_stream.formats.merge_order import merge_order_cautions, with_merge_order

DECI = "deci"
PAIRS = frozenset({"llama", "internlm2", "xverse"})
"""Architectures of llama.cpp that compute what `deci` does, and rotate pairs as it does."""
HALVES = frozenset({"qwen2", "exaone"})
"""Those that rotate halves of a head."""
KNOWN_TENSORS = re.compile(
    r"blk\.\d+\.((attn_(q|k|v|output)|ffn_(gate|up|down))\.(weight|bias)|(attn|ffn)_norm\.weight)"
    r"|blk\.\d+\.attn_(q|k|v|output)\.(scale|input_scale)"
    r"|(token_embd|output_norm|output|rope_freqs|rope_factors_(long|short))\.weight"
)
"""What `deci` has a place for. Factors of the MLP have none there, though `llama` multiplies by them."""

OTHER_FORM = "prune the model's safetensors form for that"
LLAMA_CPP_ONLY = Obstacle(
    EVERY_ENGINE - {Engine.LLAMA_CPP},
    "GGUF",
    "a file for llama.cpp and what is built on it",
    notice=True,
    way_out=OTHER_FORM,
)


def _limits(model: Model, dropped: tuple[int, ...], compensated: bool) -> Limits:
    obstacles = (LLAMA_CPP_ONLY, *_obstacles(model, dropped, compensated))
    return Limits(obstacles, merge_order_cautions(model.config))


def _obstacles(model: Model, dropped: tuple[int, ...], compensated: bool) -> Iterator[Obstacle]:
    architecture, heads = _architecture(model), model.heads
    if architecture not in PAIRS | HALVES:
        reason = f"llama.cpp can leave attention out of {', '.join(sorted(PAIRS | HALVES))} only"
        yield _obstacle(f"{ARCHITECTURE}={architecture}", reason)
        return
    if other := next((t for t in model.checkpoint.tensors if not KNOWN_TENSORS.fullmatch(t)), None):
        yield _obstacle(other, f"llama.cpp's {DECI} has no such tensor")
    if len(model.attention) != model.layers:
        yield _obstacle("attention.head_count", "some layers have no attention already")
    for name in ("rope.dimension_count", "attention.key_length", "attention.value_length"):
        found = model.text.get(f"{architecture}.{name}", heads.dim)
        if found != heads.dim:
            reason = f"{DECI} rotates whole heads, which are {heads.dim} wide"
            yield _obstacle(f"{architecture}.{name}={found}", reason)
    rotated = map(model.checkpoint.tensors.__getitem__, _rotated(model, dropped))
    if tensor := next((t for t in rotated if not is_known(t.dtype)), None):
        reason = "its rows would change their order, and where they end is not known"
        yield _obstacle(f"{tensor.name} of {tensor.dtype}", reason)
    if 0 in dropped:
        yield _obstacle("layer 0", "llama.cpp reads its heads as the model's own")
    if compensated and (bias := next(filter(model.checkpoint.tensors.__contains__, _biases(model, dropped)), None)):
        reason = "the constant of the next layer would be this bias, which is there already"
        yield Obstacle(EVERY_ENGINE, bias, reason, way_out=f"prune {PLAIN}")


def _obstacle(field: str, reason: str) -> Obstacle:
    return Obstacle(EVERY_ENGINE, field, reason, way_out="use --format zeroed, which keeps every shape")


def _edit(model: Model, dropped: tuple[int, ...], constants: Constants) -> Edit:
    remove = frozenset(name for layer in dropped for name in model.attention_tensors(layer))
    add = tuple(_mlp_bias(model, layer, vector) for layer, vector in constants.items())
    return Edit(_metadata(model, dropped), remove=remove, add=add, interleave=_interleaved(model, dropped))


def _mlp_bias(model: Model, layer: int, vector: bytes) -> Added:
    """What the attention of `layer` would put out is added to the stream before its MLP: a bias of the one before.

    Which llama.cpp takes in each layer or not, and always in F32.
    """
    module = f"{model.prefix}{layer - 1}.ffn_down"
    return added_as("F32", _tensor(model, f"{module}.weight"), f"{module}.bias", (model.hidden,), vector)


def _biases(model: Model, dropped: tuple[int, ...]) -> Iterator[str]:
    return (f"{model.prefix}{layer - 1}.ffn_down.bias" for layer in dropped)


def _interleaved(model: Model, dropped: tuple[int, ...]) -> dict[str, int]:
    dim, tensors, names = model.heads.dim, model.checkpoint.tensors, _rotated(model, dropped)
    for name in names:
        if dim % 2 or tensors[name].shape[0] % dim:
            raise CheckpointError(
                f"{name} in {model.checkpoint.source.title} has {tensors[name].shape[0]} rows, which are not the "
                f"halves of heads of {dim}; it is damaged, download it again"
            )
    return dict.fromkeys(names, dim)


def _rotated(model: Model, dropped: tuple[int, ...]) -> list[str]:
    """The tensors whose rows are brought into pairs."""
    if _architecture(model) not in HALVES:
        return []
    return [
        name
        for layer in range(model.layers)
        if layer not in dropped
        for part in ("attn_q", "attn_k")
        for name in (f"{model.prefix}{layer}.{part}.weight", f"{model.prefix}{layer}.{part}.bias")
        if name in model.checkpoint.tensors
    ]


def _metadata(model: Model, dropped: tuple[int, ...]) -> dict[str, Value]:
    """The source's, under the names that `deci` reads. What is not the architecture's own stays, but for a lost
    merge order."""
    own = f"{_architecture(model)}."
    metadata: dict[str, Value] = {}
    for key, value in with_merge_order(model.config).items():
        metadata[f"{DECI}.{key.removeprefix(own)}" if key.startswith(own) else key] = value
    heads = [Heads(0, 0, 0) if a.layer in dropped else a.heads for a in model.attention]
    metadata[ARCHITECTURE] = string(DECI)
    metadata[f"{DECI}.attention.head_count"] = integers([h.queries for h in heads])
    metadata[f"{DECI}.attention.head_count_kv"] = integers([h.keys for h in heads])
    metadata[f"{DECI}.feed_forward_length"] = integers([_mlp_width(model, layer) for layer in range(model.layers)])
    metadata[MARK] = integers(dropped)
    return metadata


def _mlp_width(model: Model, layer: int) -> int:
    return _tensor(model, f"{model.prefix}{layer}.ffn_up.weight").shape[0]


def _tensor(model: Model, name: str) -> Tensor:
    if name not in model.checkpoint.tensors:
        raise CheckpointError(f"{model.checkpoint.source.title} has no {name}; it is incomplete, download it again")
    return model.checkpoint.tensors[name]


def _architecture(model: Model) -> str:
    return str(model.text[ARCHITECTURE])


DECI_NO_OP = Format("no-op", True, lambda family: False, _limits, _edit)
