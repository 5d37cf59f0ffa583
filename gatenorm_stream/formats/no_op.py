"""`no-op`: attention really absent, in the form of nemotron-nas (DeciLM), which stock engines know.

Each layer's `block_configs` entry says whether it has attention. llama.cpp, mlx-lm, vLLM and SGLang read that;
transformers, which does not, runs the file that travels along (`runtime/modeling_gatenorm.py`). The form is that of
Llama: docs/engines.md says what each engine demands and why.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from gatenorm_stream.errors import CheckpointError
from gatenorm_stream.families.model import Model
from gatenorm_stream.families.model_class import LANGUAGE_MODEL, ModelClass
from gatenorm_stream.families.positions import rope_parameters, sliding_window
from gatenorm_stream.families.sizes import size
from gatenorm_stream.families.table import FAMILIES
from gatenorm_stream.formats.constants import PLAIN, beside
from gatenorm_stream.formats.edit import Added, Constants, Edit, Format, Limits, Obstacle
from gatenorm_stream.formats.engines import EVERY_ENGINE
from gatenorm_stream.formats.llama_cpp_tokenizer import tokenizer_limits
from gatenorm_stream.formats.model_class import class_cautions, class_obstacles, language_model_obstacles
from gatenorm_stream.formats.quantised import is_quantised, way_out_of_quantised
from gatenorm_stream.formats.tokenizer import tokenizer_cautions
from gatenorm_stream.formats.travelling_file import auto_map_of, removed, travelling_files

MLP_MULTIPLE = 256
LLAMA = next(row for row in FAMILIES if row.model_type == "llama")
"""What transformers builds of a Qwen 2, whose own class has no bias in o, and of whatever gets biases in its MLP:
Llama with biases computes the same."""
GATE, UP, DOWN = MLP = ("gate_proj", "up_proj", "down_proj")
OTHER_PLACE = f"use --format transformers, or prune {PLAIN}"
STALE = ("layer_types", "use_sliding_window", "max_window_layers")
"""Keys that speak of windows, which the form does not know."""


def _limits(model: Model, dropped: tuple[int, ...], compensated: bool) -> Limits:
    config = model.config
    found = []

    def stop(engines: frozenset[str] | set[str], field: str, reason: str) -> None:
        found.append(Obstacle(frozenset(engines), field, reason))

    if model.multimodal:
        stop(EVERY_ENGINE, f"model_type={config.get('model_type')}", "the form knows text models only")
        return Limits(tuple(found))
    if not model.family.llama_shaped:
        stop(EVERY_ENGINE, f"model_type={model.family.model_type}", "the form knows the layers of Llama only")
        return Limits(tuple(found))
    found += class_obstacles(model)
    found += (replace(o, engines=EVERY_ENGINE, notice=False) for o in language_model_obstacles(model))
    if is_quantised(model):
        reason = "the form is known unquantised only"
        found.append(Obstacle(EVERY_ENGINE, "quantization_config", reason, way_out=way_out_of_quantised(model)))
    activation = config.get("hidden_act", "silu")
    if activation != "silu":
        stop(EVERY_ENGINE, f"hidden_act={activation}", "the form knows silu only")
    intermediate = _size(model, "intermediate_size")
    if intermediate % MLP_MULTIPLE:
        stop(
            EVERY_ENGINE,
            f"intermediate_size={intermediate}",
            f"the form rounds it up to a multiple of {MLP_MULTIPLE}",
        )
    window = sliding_window(model)
    if window is not None and window < _size(model, "max_position_embeddings"):
        stop(EVERY_ENGINE, f"sliding_window={window}", "the form knows full attention only")
    rope = rope_parameters(model)
    if rope["rope_type"] not in ("default", "llama3"):
        stop(
            EVERY_ENGINE,
            f"rope_type={rope['rope_type']}",
            "only default and llama3 mean the same in every engine",
        )
    if config.get("partial_rotary_factor", 1) != 1:
        stop(EVERY_ENGINE, "partial_rotary_factor", "the form rotates whole heads")
    heads = model.heads
    if heads.dim * heads.queries != model.hidden:
        stop(
            {"llama.cpp", "mlx-lm"},
            f"head_dim={heads.dim}",
            f"these compute it as hidden_size / num_attention_heads = {model.hidden}/{heads.queries}",
        )
    if compensated and _mlp_biased(model):
        reason = "the constants would be the biases of its MLP, which has some already"
        found.append(Obstacle(EVERY_ENGINE, "mlp_bias=true", reason, way_out=OTHER_PLACE))
    elif compensated or _mlp_biased(model):
        field = "the constant" if compensated else "mlp_bias=true"
        notice = "its MLP of this form has no bias and would drop it silently"
        found.append(Obstacle(frozenset({"sglang"}), field, notice, notice=True))
    if compensated and 0 in dropped:
        reason = "its constant would be the bias of a layer before it, and there is none"
        found.append(Obstacle(EVERY_ENGINE, "layer 0", reason, way_out=OTHER_PLACE))
    if 0 in dropped:
        stop({"llama.cpp", "vllm"}, "layer 0", "these read the first layer's heads as the model's own")
    tokenizer = tokenizer_limits(model)
    cautions = (*tokenizer.cautions, *tokenizer_cautions(model), *class_cautions(model))
    return Limits((*found, *tokenizer.obstacles), cautions)


def _edit(model: Model, dropped: tuple[int, ...], constants: Constants) -> Edit:
    remove = {name for layer in dropped for name in model.attention_tensors(layer)}
    remove |= {name for name in model.checkpoint.tensors if name.endswith(".rotary_emb.inv_freq")}
    remove |= _switched_off(model)
    return Edit(
        _config(model, dropped, bool(constants)),
        remove=frozenset(remove),
        add=(*_output_biases(model, dropped), *(_mlp_biases(model, constants) if constants else ())),
        files=travelling_files(model),
    )


NO_OP = Format("no-op", True, lambda family: family.llama_shaped, _limits, _edit)


def _output_biases(model: Model, dropped: tuple[int, ...]) -> Iterator[Added]:
    """Zeros, where q, k and v have biases and o has none (Qwen 2): the form has all four or none."""
    for layer in sorted(set(range(model.layers)) - set(dropped)):
        prefix = f"{model.prefix}{layer}.{model.family.attention}."
        output, names = f"{prefix}{model.family.output}", model.checkpoint.tensors
        there = f"{output}.bias" in names and model.family.has_output_bias(model.config)
        if _biased(model) and f"{prefix}{model.family.query}.bias" in names and not there:
            yield Added(f"{output}.bias", (model.hidden,), f"{output}.weight")


def _mlp_biases(model: Model, constants: Constants) -> Iterator[Added]:
    """Three in every layer, since the form has all or none.

    What a layer's attention would put out is added to the stream before its MLP: a bias of the MLP before it.
    """
    inner, hidden = _size(model, "intermediate_size"), model.hidden
    for layer in range(model.layers):
        shapes = ((inner, hidden), (inner, hidden), (hidden, inner))
        for part, shape in zip(MLP, shapes, strict=True):
            module = f"{model.prefix}{layer}.mlp.{part}"
            weight = model.checkpoint.tensors.get(f"{module}.weight")
            if weight is None or weight.shape != shape:
                raise CheckpointError(
                    f"{model.checkpoint.source.title} has no {module}.weight of {list(shape)}; download it again"
                )
            values = constants.get(layer + 1) if part == DOWN else None
            yield beside(weight, f"{module}.bias", shape[:1], values)


def _biased(model: Model) -> bool:
    """Whether q, k and v have biases that the model adds."""
    on = model.family.model_type == "qwen2" or model.family.has_output_bias(model.config)
    return on and any(name.endswith(f".{model.family.query}.bias") for name in model.checkpoint.tensors)


def _mlp_biased(model: Model) -> bool:
    return model.family.model_type == "llama" and bool(model.config.get("mlp_bias"))


def _switched_off(model: Model) -> set[str]:
    """Biases that are in the file, and that the source's class leaves out: in this form they would be added."""
    off = [] if _biased(model) else [f"{model.family.attention}.{part}_proj" for part in "qkv"]
    off += [] if model.family.has_output_bias(model.config) else [f"{model.family.attention}.{model.family.output}"]
    off += [] if _mlp_biased(model) else [f"mlp.{part}" for part in MLP]
    names = (f"{model.prefix}{layer}.{module}.bias" for layer in range(model.layers) for module in off)
    return {name for name in names if name in model.checkpoint.tensors}


def _config(model: Model, dropped: tuple[int, ...], compensated: bool) -> dict[str, Any]:
    """Engines differ in their defaults and in the keys they read, so all of them are written out."""
    as_llama = compensated or model.family.model_type == "qwen2"
    source = {key: value for key, value in model.config.items() if key not in STALE}
    rope = rope_parameters(model)
    return {
        **source,
        "sliding_window": None,
        "architectures": ["DeciLMForCausalLM"],
        "model_type": "nemotron-nas",
        "auto_map": auto_map_of(model, ModelClass(LLAMA.architecture, LANGUAGE_MODEL)),
        "num_key_value_heads": model.heads.keys,
        "head_dim": model.heads.dim,
        "hidden_act": "silu",
        "rms_norm_eps": source.get("rms_norm_eps", 1e-6),
        "max_position_embeddings": _size(model, "max_position_embeddings"),
        "attention_bias": _biased(model),
        "mlp_bias": compensated or _mlp_biased(model),
        "tie_word_embeddings": bool(source.get("tie_word_embeddings", False)),
        **_rope_config(rope),
        "block_configs": [_block(model, layer in dropped) for layer in range(model.layers)],
        "gatenorm": removed(model, dropped, LLAMA if as_llama else model.family),
    }


def _block(model: Model, pruned: bool) -> dict[str, Any]:
    return {
        "attention": {
            "n_heads_in_group": None if pruned else model.heads.group,
            "no_op": pruned,
            "replace_with_linear": False,
        },
        "ffn": {
            "ffn_mult": _ffn_mult(_size(model, "intermediate_size"), model.hidden),
            "no_op": False,
            "replace_with_linear": False,
        },
    }


def _ffn_mult(intermediate: int, hidden: int) -> float:
    """The factor from which engines compute int(2 * factor * hidden / 3), rounded up to a multiple of 256.

    Aims at the middle of the bucket, so that six decimals (mlx-lm) are enough.
    """
    return round(3 * (intermediate - MLP_MULTIPLE / 2) / (2 * hidden), 6)


def _rope_config(rope: dict[str, Any]) -> dict[str, Any]:
    """`rope_parameters` serves transformers, llama.cpp, vLLM and SGLang, the flat keys mlx-lm.

    mlx-lm prefers `type`, and transformers from 5.18 on fails to load a tokenizer beside an unknown model type
    whose `rope_scaling` has a `rope_type` other than default; hence the two different values.
    """
    scaling = None
    if rope["rope_type"] != "default":
        scaling = {k: v for k, v in rope.items() if k != "rope_theta"}
        scaling |= {"type": rope["rope_type"], "rope_type": "default"}
    return {"rope_theta": rope["rope_theta"], "rope_scaling": scaling, "rope_parameters": rope}


def _size(model: Model, key: str) -> int:
    return size(model.config, key, model.checkpoint.config_where, model.family.defaults.get(key))
