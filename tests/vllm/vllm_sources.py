"""Small random models of the families that vLLM runs pruned, made by transformers."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import transformers

from tests.engines import sources

LAYERS = {
    "num_hidden_layers": 4,
    "hidden_size": 128,
    "num_attention_heads": 4,
    "vocab_size": 3072,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
    "initializer_range": 0.08,
}
GROUPED = sources.SHAPE | LAYERS | {"num_key_value_heads": 2, "intermediate_size": 256}
WIDE_HEADS = GROUPED | {"head_dim": 64}
WINDOWED = GROUPED | {"head_dim": 32, "sliding_window": 8}
EXPERTS = GROUPED | {"head_dim": 32, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 64}
GPT2 = {"n_layer": 4, "n_embd": 128, "n_head": 4, "vocab_size": 3072, "n_positions": 512}
ALTERNATING = {"layer_types": ["sliding_attention", "full_attention"] * 2}

CONFIGS: dict[str, dict[str, Any]] = {
    "CohereForCausalLM": GROUPED,
    "Cohere2ForCausalLM": WINDOWED | {"sliding_window": 64},  # vLLM's window is one token wider than transformers'
    "Exaone4ForCausalLM": WINDOWED | ALTERNATING,
    "FalconForCausalLM": LAYERS | {"new_decoder_architecture": True, "num_kv_heads": 2},
    "GemmaForCausalLM": GROUPED | {"head_dim": 32},
    "Gemma2ForCausalLM": WINDOWED,
    "Gemma3ForCausalLM": WINDOWED | ALTERNATING,
    "GlmForCausalLM": GROUPED | {"head_dim": 32},
    "Glm4ForCausalLM": GROUPED | {"head_dim": 32},
    "GptOssForCausalLM": WIDE_HEADS | {"num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 64},
    "GPT2LMHeadModel": GPT2 | {"initializer_range": 0.08},
    "GPTJForCausalLM": GPT2 | {"rotary_dim": 16, "initializer_range": 0.08},
    "GPTNeoXForCausalLM": LAYERS | {"intermediate_size": 256},
    "GraniteForCausalLM": GROUPED
    | {"residual_multiplier": 0.5, "attention_multiplier": 0.2, "logits_scaling": 2.0},
    "GraniteMoeHybridForCausalLM": GROUPED
    | {
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
        "layer_types": ["attention", "mamba", "attention", "attention"],
        "mamba_n_heads": 4,
        "mamba_d_state": 16,
        "mamba_d_head": 64,
        "shared_intermediate_size": 64,
    },
    "GraniteMoeForCausalLM": GROUPED | {"num_local_experts": 4, "residual_multiplier": 0.5},
    "Llama4ForCausalLM": GROUPED
    | {
        "head_dim": 32,
        "intermediate_size_mlp": 256,
        "num_local_experts": 2,
        "num_experts_per_tok": 1,
        "attention_chunk_size": 128,
        "use_qk_norm": False,
    },
    "LlamaForCausalLM": GROUPED,
    "Ministral3ForCausalLM": WINDOWED,
    "MistralForCausalLM": WINDOWED,
    "MixtralForCausalLM": GROUPED | {"num_local_experts": 4},
    "NemotronForCausalLM": GROUPED | {"head_dim": 32},
    "OlmoForCausalLM": GROUPED,
    "Olmo2ForCausalLM": GROUPED,
    "Olmo3ForCausalLM": WINDOWED,
    "OlmoeForCausalLM": EXPERTS,
    "PhiForCausalLM": GROUPED,
    "Phi3ForCausalLM": GROUPED,
    "Qwen2ForCausalLM": GROUPED,
    "Qwen2MoeForCausalLM": EXPERTS | {"shared_expert_intermediate_size": 64},
    "Qwen3ForCausalLM": WIDE_HEADS,
    "Qwen3MoeForCausalLM": EXPERTS,
    "SmolLM3ForCausalLM": GROUPED | {"no_rope_layer_interval": 2},
    "StableLmForCausalLM": GROUPED,
    "Starcoder2ForCausalLM": GROUPED,
}


def make(architecture: str, **changes) -> transformers.PreTrainedModel:
    stock = getattr(transformers, architecture)
    return stock(stock.config_class(**CONFIGS[architecture] | changes))


def write(architecture: str, path: Path, tokenizer: Path, **changes) -> Path:
    """A checkpoint of this architecture, with the tokenizer files of another model."""
    return sources.write(partial(make, architecture, **changes), path, tokenizer)
