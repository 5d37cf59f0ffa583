"""The table of families. A new family is a row here and a fixture in tests/families."""

from __future__ import annotations

from dataclasses import replace

from gatenorm_stream.families.family import Config, Family


def _falcon(row: Family, config: Config) -> Family:
    """Three generations of Falcon under one model type."""
    if config.get("new_decoder_architecture"):
        norms = config.get("num_ln_in_parallel_attn") or 2
        return replace(row, input_norm="ln_attn" if norms == 2 else None)
    row = replace(row, kv_heads=1 if config.get("multi_query", True) else None)
    return replace(row, input_norm=None) if config.get("parallel_attn", True) else row


def _stablelm(row: Family, config: Config) -> Family:
    return replace(row, input_norm=None) if config.get("use_parallel_residual") else row


LLAMA_7B = {
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "max_position_embeddings": 2048,
}
PARALLEL = "attention and MLP share the input norm, which stays"
POST_NORM = "post_attention_layernorm"
ONLY_POST_NORM = "no norm before attention; the one after it stays and maps zero to zero"
WITH_POST_NORM = "the norm after attention stays and maps zero to zero"

FAMILIES = (
    Family("Llama 1, 2, 3", "llama", "LlamaForCausalLM", llama_shaped=True, defaults=LLAMA_7B),
    Family(
        "Mistral",
        "mistral",
        "MistralForCausalLM",
        output_bias=False,
        llama_shaped=True,
        defaults={
            **LLAMA_7B,
            "max_position_embeddings": 131_072,
            "num_key_value_heads": 8,
            "sliding_window": 4096,
        },
    ),
    Family("Ministral", "ministral", "MinistralForCausalLM", output_bias=False),
    Family("Ministral 3", "ministral3", "Ministral3ForCausalLM", output_bias=False),
    Family("Mixtral", "mixtral", "MixtralForCausalLM", output_bias=False),
    Family(
        "Qwen 2, 2.5",
        "qwen2",
        "Qwen2ForCausalLM",
        output_bias=False,
        llama_shaped=True,
        defaults={**LLAMA_7B, "max_position_embeddings": 32_768, "num_key_value_heads": 32},
    ),
    Family("Qwen 3", "qwen3", "Qwen3ForCausalLM"),
    Family("Qwen 2 MoE", "qwen2_moe", "Qwen2MoeForCausalLM", output_bias=False),
    Family("Qwen 3 MoE", "qwen3_moe", "Qwen3MoeForCausalLM"),
    Family("Qwen 3 Next", "qwen3_next", "Qwen3NextForCausalLM", gated=True, hybrid=True),
    Family("Gemma", "gemma", "GemmaForCausalLM"),
    Family(
        "Gemma 2",
        "gemma2",
        "Gemma2ForCausalLM",
        output_norm=POST_NORM,
        note=WITH_POST_NORM,
    ),
    Family(
        "Gemma 3 (text)",
        "gemma3_text",
        "Gemma3ForCausalLM",
        output_norm=POST_NORM,
        defaults={
            "hidden_size": 2304,
            "num_hidden_layers": 26,
            "num_attention_heads": 8,
            "num_key_value_heads": 4,
        },
        note=WITH_POST_NORM,
    ),
    Family("Phi 3, 4", "phi3", "Phi3ForCausalLM", output_bias=False, query="qkv_proj", packing="blocks"),
    Family(
        "Phi 1, 1.5, 2",
        "phi",
        "PhiForCausalLM",
        output_bias=True,
        output="dense",
        input_norm=None,
        note=PARALLEL,
    ),
    Family("Phi 3.5 MoE", "phimoe", "PhimoeForCausalLM"),
    Family("OLMo", "olmo", "OlmoForCausalLM", note="its norms have no weights"),
    Family("OLMo 2", "olmo2", "Olmo2ForCausalLM", input_norm=None, output_norm=POST_NORM, note=ONLY_POST_NORM),
    Family("OLMo 3", "olmo3", "Olmo3ForCausalLM", input_norm=None, output_norm=POST_NORM, note=ONLY_POST_NORM),
    Family("OLMoE", "olmoe", "OlmoeForCausalLM"),
    Family("Command R", "cohere", "CohereForCausalLM", input_norm=None, note=PARALLEL),
    Family("Command R7B, A", "cohere2", "Cohere2ForCausalLM", input_norm=None, note=PARALLEL),
    Family("Granite", "granite", "GraniteForCausalLM"),
    Family("Granite MoE", "granitemoe", "GraniteMoeForCausalLM"),
    Family("Granite 4", "granitemoehybrid", "GraniteMoeHybridForCausalLM", hybrid=True),
    Family("SmolLM 3", "smollm3", "SmolLM3ForCausalLM"),
    Family(
        "StableLM",
        "stablelm",
        "StableLmForCausalLM",
        output_bias=False,
        variant=_stablelm,
        note=f"in parallel blocks {PARALLEL}",
    ),
    Family(
        "Falcon",
        "falcon",
        "FalconForCausalLM",
        output_bias="bias",
        layers="transformer.h",
        attention="self_attention",
        query="query_key_value",
        output="dense",
        packing="groups",
        variant=_falcon,
        note=f"40B and 180B have a norm for attention alone; else in parallel blocks {PARALLEL}",
    ),
    Family(
        "GPT-NeoX, Pythia",
        "gpt_neox",
        "GPTNeoXForCausalLM",
        biased_by_default=True,
        layers="gpt_neox.layers",
        attention="attention",
        query="query_key_value",
        output="dense",
        packing="groups",
    ),
    Family(
        "GPT-2",
        "gpt2",
        "GPT2LMHeadModel",
        output_bias=True,
        layers="transformer.h",
        attention="attn",
        query="c_attn",
        output="c_proj",
        input_norm="ln_1",
        packing="blocks",
        transposed=True,
    ),
    Family(
        "GPT-J",
        "gptj",
        "GPTJForCausalLM",
        output_bias=False,
        layers="transformer.h",
        attention="attn",
        output="out_proj",
        input_norm=None,
        note=PARALLEL,
    ),
    Family("StarCoder 2", "starcoder2", "Starcoder2ForCausalLM", output_bias="use_bias", biased_by_default=True),
    Family(
        "InternLM 2",
        "internlm2",
        "InternLM2ForCausalLM",
        output_bias="bias",
        biased_by_default=True,
        attention="attention",
        query="wqkv",
        output="wo",
        input_norm="attention_norm",
        packing="groups",
        stock=False,
        note="transformers has no class for it: runs by the code beside the checkpoint",
    ),
    Family("DeepSeek V2", "deepseek_v2", "DeepseekV2ForCausalLM", latent=True),
    Family("DeepSeek V3, R1", "deepseek_v3", "DeepseekV3ForCausalLM", latent=True),
    Family("GPT-OSS", "gpt_oss", "GptOssForCausalLM", biased_by_default=True),
    Family("Llama 4 (text)", "llama4_text", "Llama4ForCausalLM"),
    Family("GLM 4", "glm", "GlmForCausalLM", output_bias=False),
    Family(
        "GLM 4 0414",
        "glm4",
        "Glm4ForCausalLM",
        output_bias=False,
        output_norm="post_self_attn_layernorm",
        note=WITH_POST_NORM,
    ),
    Family(
        "EXAONE 4",
        "exaone4",
        "Exaone4ForCausalLM",
        output_bias=False,
        input_norm=None,
        output_norm=POST_NORM,
        note=ONLY_POST_NORM,
    ),
    Family("Nemotron", "nemotron", "NemotronForCausalLM"),
    Family("Jamba", "jamba", "JambaForCausalLM", output_bias=False, hybrid=True),
    Family(
        "LFM 2",
        "lfm2",
        "Lfm2ForCausalLM",
        output_bias=False,
        output="out_proj",
        input_norm="operator_norm",
        hybrid=True,
    ),
)
