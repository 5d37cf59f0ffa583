"""A GGUF file's attention sublayers. Its names are the same for every architecture, so no table is needed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from gatenorm_stream.checkpoint.gguf import GgufCheckpoint
from gatenorm_stream.checkpoint.gguf_types import QUANTISED
from gatenorm_stream.checkpoint.tensors import Checkpoint, Tensor
from gatenorm_stream.errors import CheckpointError, UnsupportedModelError
from gatenorm_stream.families.family import Family
from gatenorm_stream.families.gguf_purpose import no_language_model
from gatenorm_stream.families.heads import Heads
from gatenorm_stream.families.model import Model
from gatenorm_stream.families.projections import Projection, Weight, rows, starts
from gatenorm_stream.families.pruned import REFUSED, check_absence, pruned_layers
from gatenorm_stream.families.scales import FLOAT_DTYPES
from gatenorm_stream.families.sizes import MOST_HEADS, check_counts, size
from gatenorm_stream.families.sublayers import Attention

ARCHITECTURE = "general.architecture"
MARK = "gatenorm.dropped_layers"
"""Stands in the metadata of what was pruned."""
LAYERS = "blk"


def read_gguf_model(checkpoint: GgufCheckpoint, *, pruned: bool = False) -> Model:
    """Reads any architecture with separate or fused query and key projections, with `pruned` an output of ours too.

    Raises UnsupportedModelError if there is none, or it was pruned already, CheckpointError if metadata and
    tensors contradict each other.
    """
    title = checkpoint.source.title
    text = {key: value.read() for key, value in checkpoint.config.items()}
    architecture = text.get(ARCHITECTURE)
    if words := no_language_model(text, checkpoint.tensors):
        raise UnsupportedModelError(f"{title} {words}")
    if not isinstance(architecture, str):
        raise CheckpointError(f"{title} does not say its {ARCHITECTURE}; it is no model, or damaged")
    if MARK in text and not pruned:
        raise UnsupportedModelError(f"{title} {REFUSED}")
    layers = size(text, f"{architecture}.block_count", title)
    hidden = size(text, f"{architecture}.embedding_length", title)
    if layers > len(checkpoint.tensors):
        raise CheckpointError(
            f"{title} has {architecture}.block_count={layers}, but only {len(checkpoint.tensors)} tensors; it is "
            "damaged, download it again"
        )
    check_counts(layers, 0, title)
    family = Family(
        name=f"{architecture} (GGUF)",
        model_type=f"gguf/{architecture}",
        architecture=f"{architecture} (GGUF)",
        layers=LAYERS,
        attention="attn",
        separator="_",
        query="q",
        key="k",
        output="output",
        input_norm=None,
    )
    gone = pruned_layers(text[MARK], layers, MARK, title) if MARK in text else ()
    check_absence(checkpoint.tensors, f"{LAYERS}.", family, gone, title)
    rest = sorted(set(range(layers)) - set(gone) - _of_prediction(text, architecture, layers, checkpoint.tensors))
    counted = sum(_of_layer(text, f"{architecture}.attention.head_count", layer) for layer in rest)
    check_counts(layers, counted, title)
    others = _with_another_mixer(checkpoint.tensors)
    found = (_attention(checkpoint, architecture, text, hidden, layer) for layer in rest if layer not in others)
    attention = tuple(a for a in found if a)
    if not attention:
        raise UnsupportedModelError(f"{title} has no layer with softmax attention")
    return Model(checkpoint, family, text, f"{LAYERS}.", layers, hidden, attention, gone)


def _of_prediction(text: Mapping[str, Any], architecture: str, layers: int, names: Iterable[str]) -> set[int]:
    """Layers that predict tokens further ahead (MTP): they stand behind the model's own, which run without them."""
    count = text.get(f"{architecture}.nextn_predict_layers")
    last = range(layers - count, layers) if type(count) is int and 0 < count < layers else range(0)
    marked = (re.match(rf"{LAYERS}\.([0-9]{{1,9}})\.nextn\.", name) for name in names)
    return {*last, *(int(match[1]) for match in marked if match)}


def _with_another_mixer(names: Iterable[str]) -> set[int]:
    """Layers with a state space model's tensors."""
    marked = (re.match(rf"{LAYERS}\.([0-9]{{1,9}})\.ssm_", name) for name in names)
    return {int(match[1]) for match in marked if match}


def _attention(
    checkpoint: GgufCheckpoint, architecture: str, text: Mapping[str, Any], hidden: int, layer: int
) -> Attention | None:
    """None if the layer has another kind of mixer, or none. Fused projections hold all of q, then k, then v."""
    title, tensors = checkpoint.source.title, checkpoint.tensors
    prefix = f"{LAYERS}.{layer}."
    query, key, fused = (tensors.get(f"{prefix}attn_{part}.weight") for part in ("q", "k", "qkv"))
    if f"{prefix}attn_kv_a_mqa.weight" in tensors:
        raise UnsupportedModelError(
            f"{title} computes its keys from a latent; scores of that are read from its safetensors form only"
        )
    queries = _of_layer(text, f"{architecture}.attention.head_count", layer)
    keys = _of_layer(text, f"{architecture}.attention.head_count_kv", layer, queries)
    if not queries or not keys or not (fused or (query and key)):
        return None
    if queries % keys or queries > MOST_HEADS:
        raise CheckpointError(
            f"{title} has {queries} query heads for {keys} KV heads in layer {layer}; download it again"
        )
    if fused:
        dim = fused.shape[0] // (queries + 2 * keys)
        heads = Heads(queries, keys, dim)
        check_matrix(title, fused, rows(heads, "blocks")[0], hidden)
        firsts, weight = starts(heads, "blocks"), scaled_matrix(checkpoint, fused)
        return Attention(
            layer, heads, Projection(weight, firsts[0], dim), Projection(weight, firsts[1], dim), 2 * keys * dim
        )
    assert query
    assert key
    dim = key.shape[0] // keys
    heads = Heads(queries, keys, dim)
    gated = query.shape[0] == 2 * queries * dim
    counts = rows(heads, "separate", gated)
    check_matrix(title, query, counts[0], hidden)
    check_matrix(title, key, counts[1], hidden)
    firsts = starts(heads, "separate", gated)
    value = tensors.get(f"{prefix}attn_v.weight", key)
    return Attention(
        layer,
        heads,
        Projection(scaled_matrix(checkpoint, query), firsts[0], dim),
        Projection(scaled_matrix(checkpoint, key), firsts[1], dim),
        keys * dim + value.shape[0],
    )


def _of_layer(text: Mapping[str, Any], key: str, layer: int, default: int = 0) -> int:
    """The number, or the layer's entry if there is one for each; `default` if the metadata do not tell."""
    found = text.get(key)
    if isinstance(found, list):
        found = found[layer] if layer < len(found) else None
    return found if type(found) is int and found >= 0 else default


def scaled_matrix(checkpoint: Checkpoint, tensor: Tensor) -> Weight:
    """The matrix with the factor that llama.cpp multiplies what comes of it by, MODULE.scale, if there is one.

    Where its numbers can't be read, it says why. Raises CheckpointError for a factor that llama.cpp would not take.
    """
    title = checkpoint.source.title
    if tensor.dtype not in FLOAT_DTYPES and tensor.dtype not in QUANTISED:
        why = f"{tensor.name} in {title} is stored as {tensor.dtype}, which the gguf package does not dequantise"
        return Weight(tensor, unread=why)
    scale = checkpoint.tensors.get(f"{tensor.name.removesuffix('.weight')}.scale")
    if scale is None:
        return Weight(tensor)
    if scale.dtype not in FLOAT_DTYPES or scale.shape != (1,):
        raise CheckpointError(
            f"{scale.name} in {title} is {scale.dtype} of {list(scale.shape)}, where llama.cpp takes one number; "
            "it is damaged, download it again"
        )
    return Weight(tensor, scale, (tensor.shape[0], tensor.shape[1]))


def check_matrix(title: str, tensor: Tensor, rows: int, columns: int) -> None:
    if tensor.shape != (rows, columns):
        raise CheckpointError(
            f"{tensor.name} in {title} has shape {list(tensor.shape)}, but its metadata call for "
            f"{[rows, columns]}; it is damaged, download it again"
        )
