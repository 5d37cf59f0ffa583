"""A tiny model of each family, of each form that its config can give it, made by the stock transformers class."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

LAYERS = 4
BASE: dict[str, Any] = {
    "vocab_size": 128,
    "hidden_size": 64,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 96,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
MULTI_HEAD: dict[str, Any] = {key: value for key, value in BASE.items() if key != "num_key_value_heads"}
MIXTURE: dict[str, Any] = {"num_local_experts": 4, "num_experts_per_tok": 2}
EXPERTS: dict[str, Any] = {
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 32,
    "shared_expert_intermediate_size": 32,
}
ALTERNATING: dict[str, Any] = {"sliding_window": 6, "layer_types": ["sliding_attention", "full_attention"] * 2}
YARN: dict[str, Any] = {
    "rope_type": "yarn",
    "rope_theta": 10_000.0,
    "factor": 1.0,
    "original_max_position_embeddings": 128,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
    "mscale": 1.0,
    "mscale_all_dim": 1.0,
    "llama_4_scaling_beta": 0.1,
}
LATENT: dict[str, Any] = {
    "num_key_value_heads": 4,
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 12,
    "moe_intermediate_size": 32,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "n_group": 1,
    "topk_group": 1,
    "first_k_dense_replace": 1,
}
GPT_2 = {"vocab_size": 128, "n_embd": 64, "n_layer": LAYERS, "n_head": 4, "n_positions": 128}
SPECIAL: dict[str, Any] = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}


@dataclass(frozen=True)
class Case:
    """`config` and `model` are names of transformers' classes; `form` tells the cases of one family apart."""

    family: str
    config: str
    model: str
    options: dict[str, Any] = field(default_factory=dict, hash=False)
    form: str = ""
    attention: tuple[int, ...] = tuple(range(LAYERS))
    implementation: str = "sdpa"
    kept_norm: bool = False
    """The norm before attention stays, since the MLP reads it."""
    auto: str = "AutoModelForCausalLM"
    """The Auto class that loads it."""

    def __str__(self) -> str:
        return f"{self.family}-{self.form}" if self.form else self.family


def _case(family: str, stem: str, form: str = "", /, *, model: str = "", config: str = "", **rest: Any) -> Case:
    own = {f: rest.pop(f) for f in ("attention", "implementation", "kept_norm", "base") if f in rest}
    options = {**own.pop("base", BASE), **rest}
    return Case(family, config or f"{stem}Config", model or f"{stem}ForCausalLM", options, form, **own)


CASES = (
    _case("llama", "Llama"),
    _case("llama", "Llama", "multi-head", num_key_value_heads=4),
    _case("llama", "Llama", "biases", attention_bias=True),
    _case("llama", "Llama", "odd head_dim", head_dim=10),
    _case("mistral", "Mistral", "window", sliding_window=6),
    _case("ministral", "Ministral", head_dim=16, **ALTERNATING),
    _case("ministral3", "Ministral3", head_dim=16, rope_parameters=YARN),
    _case("mixtral", "Mixtral", **MIXTURE),
    _case("qwen2", "Qwen2"),
    _case("qwen2", "Qwen2", "window", use_sliding_window=True, max_window_layers=2, sliding_window=6),
    _case("qwen3", "Qwen3", head_dim=24),
    _case("qwen2_moe", "Qwen2Moe", **EXPERTS),
    _case("qwen3_moe", "Qwen3Moe", **EXPERTS, head_dim=16),
    _case(
        "qwen3_next",
        "Qwen3Next",
        **EXPERTS,
        head_dim=16,
        linear_num_value_heads=4,
        linear_num_key_heads=2,
        linear_key_head_dim=8,
        linear_value_head_dim=8,
        layer_types=["linear_attention", "full_attention", "full_attention", "full_attention"],
        attention=(1, 2, 3),
    ),
    _case("gemma", "Gemma", head_dim=24),
    _case("gemma2", "Gemma2", head_dim=16, query_pre_attn_scalar=16, implementation="eager", **ALTERNATING),
    _case("gemma3_text", "Gemma3", config="Gemma3TextConfig", head_dim=16, **ALTERNATING),
    _case("phi3", "Phi3"),
    _case("phi3", "Phi3", "window", sliding_window=6),
    _case("phi", "Phi", num_key_value_heads=4, kept_norm=True),
    _case("phimoe", "Phimoe", **MIXTURE),
    _case("olmo", "Olmo", clip_qkv=2.0),
    _case("olmo2", "Olmo2"),
    _case("olmo3", "Olmo3", **ALTERNATING),
    _case("olmoe", "Olmoe", num_experts=4, num_experts_per_tok=2),
    _case("cohere", "Cohere", use_qk_norm=True, kept_norm=True),
    _case("cohere2", "Cohere2", kept_norm=True, **ALTERNATING),
    _case("granite", "Granite", attention_multiplier=0.2, residual_multiplier=0.5, embedding_multiplier=2.0),
    _case("granitemoe", "GraniteMoe", **MIXTURE),
    _case(
        "granitemoehybrid",
        "GraniteMoeHybrid",
        **MIXTURE,
        layer_types=["mamba", "attention", "attention", "attention"],
        mamba_n_heads=4,
        mamba_d_state=8,
        mamba_d_head=32,
        shared_intermediate_size=32,
        attention=(1, 2, 3),
    ),
    _case("smollm3", "SmolLM3", no_rope_layers=[1, 0, 1, 1]),
    _case("stablelm", "StableLm", qk_layernorm=True),
    _case("stablelm", "StableLm", "parallel", use_parallel_residual=True, kept_norm=True),
    _case("falcon", "Falcon", "7B", base=MULTI_HEAD, kept_norm=True),
    _case("falcon", "Falcon", "40B", new_decoder_architecture=True, num_kv_heads=2),
    _case(
        "falcon",
        "Falcon",
        "11B",
        new_decoder_architecture=True,
        num_kv_heads=2,
        num_ln_in_parallel_attn=1,
        kept_norm=True,
    ),
    _case("falcon", "Falcon", "1B", base=MULTI_HEAD, multi_query=False, parallel_attn=False, alibi=True, bias=True),
    _case("gpt_neox", "GPTNeoX", "parallel", base=MULTI_HEAD, use_parallel_residual=True),
    _case("gpt_neox", "GPTNeoX", "sequential", base=MULTI_HEAD, use_parallel_residual=False),
    _case("gpt2", "GPT2", model="GPT2LMHeadModel", base={**GPT_2, **SPECIAL}),
    _case("gptj", "GPTJ", base={**GPT_2, **SPECIAL, "rotary_dim": 8}, implementation="eager", kept_norm=True),
    _case("starcoder2", "Starcoder2"),
    _case("deepseek_v2", "DeepseekV2", **LATENT, q_lora_rank=None),
    _case("deepseek_v2", "DeepseekV2", "q latent", **LATENT, q_lora_rank=24),
    _case("deepseek_v3", "DeepseekV3", **LATENT, q_lora_rank=24),
    _case("deepseek_v3", "DeepseekV3", "wide latent", **{**LATENT, "kv_lora_rank": 80}, q_lora_rank=72),
    _case(
        "gpt_oss",
        "GptOss",
        head_dim=16,
        sliding_window=6,
        num_local_experts=4,
        rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
        implementation="eager",
    ),
    _case(
        "llama4_text",
        "Llama4",
        config="Llama4TextConfig",
        head_dim=16,
        intermediate_size_mlp=96,
        num_local_experts=2,
        num_experts_per_tok=1,
        attention_chunk_size=8,
        use_qk_norm=False,
    ),
    _case("glm", "Glm", head_dim=16),
    _case("glm4", "Glm4", head_dim=16),
    _case("exaone4", "Exaone4", **ALTERNATING),
    _case("nemotron", "Nemotron"),
    _case(
        "jamba",
        "Jamba",
        attn_layer_period=2,
        attn_layer_offset=1,
        num_experts=2,
        expert_layer_period=2,
        mamba_d_state=8,
        mamba_dt_rank=8,
        use_mamba_kernels=False,
        attention=(1, 3),
    ),
    _case("lfm2", "Lfm2", layer_types=["conv", "full_attention", "full_attention", "conv"], attention=(1, 2)),
)
