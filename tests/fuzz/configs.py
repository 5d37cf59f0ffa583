"""Hostile config.json: wrong types, gigantic counts, heads that don't divide, fields of other architectures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from tests.fuzz.hostile_json import dump, edited, integers, values

sizes = st.one_of(integers, st.sampled_from([0, 1, 2, 3, 4, 5, 8, 16, 32, 64, 10**9, 10**18, 10**38]))
ropes = st.fixed_dictionaries(
    {},
    optional={
        "type": st.one_of(st.sampled_from(["default", "llama3", "yarn", "linear"]), values),
        "rope_type": st.one_of(st.sampled_from(["default", "llama3", "yarn", "dynamic"]), values),
        "rope_theta": values,
        "factor": values,
        "low_freq_factor": values,
    },
)
FIELDS: dict[str, Any] = {
    "model_type": st.one_of(
        st.sampled_from(["llama", "mistral", "bert", "nemotron-nas", "LLAMA", "llama\0"]), values
    ),
    "architectures": st.one_of(st.just([]), st.just(["X"]), values),
    "num_hidden_layers": sizes,
    "hidden_size": sizes,
    "num_attention_heads": sizes,
    "num_key_value_heads": sizes,
    "head_dim": sizes,
    "intermediate_size": sizes,
    "vocab_size": st.one_of(sizes, st.just(128256)),
    "max_position_embeddings": sizes,
    "sliding_window": st.one_of(sizes, values),
    "hidden_act": st.one_of(st.sampled_from(["silu", "gelu", "\x1b[31m"]), values),
    "rope_scaling": st.one_of(ropes, values),
    "rope_parameters": st.one_of(ropes, values),
    "rope_theta": values,
    "partial_rotary_factor": values,
    "attention_bias": values,
    "mlp_bias": values,
    "tie_word_embeddings": values,
    "quantization_config": st.one_of(st.just({"quant_method": "gptq"}), values),
    "text_config": st.one_of(values, st.just({"model_type": "llama"})),
    "layer_types": st.one_of(values, st.just(["full_attention"] * 4), st.just(["linear_attention"] * 4)),
    "auto_map": values,
    "gatenorm": values,
    "block_configs": values,
    "torch_dtype": values,
}


def files(config: Path) -> st.SearchStrategy[bytes]:
    original: dict[str, Any] = json.loads(config.read_bytes())
    return st.one_of(edited(original, FIELDS), edited(original, FIELDS), values.map(dump))
