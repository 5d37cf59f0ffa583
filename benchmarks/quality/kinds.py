"""The kinds of decoder that are trained: stock transformers classes of about equal size."""

import math
from dataclasses import dataclass

import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, Qwen3Config, Qwen3ForCausalLM

CONTEXT = 512


@dataclass(frozen=True)
class Kind:
    name: str
    layers: int
    hidden: int
    intermediate: int
    heads: int
    key_heads: int
    head_dim: int
    qk_norm: bool = False


KINDS = {
    kind.name: kind
    for kind in (
        Kind("mha-12", 12, 384, 1024, 6, 6, 64),
        Kind("gqa-24", 24, 256, 768, 4, 2, 64),
        Kind("qknorm-24", 24, 256, 768, 4, 2, 64, qk_norm=True),
        Kind("gqa-48", 48, 192, 512, 6, 2, 32),
        Kind("mha-12x768", 12, 768, 2048, 12, 12, 64),
        Kind("gqa-24x512", 24, 512, 1536, 8, 4, 64),
        Kind("toy", 4, 64, 256, 4, 2, 16),
        Kind("toy-qknorm", 4, 64, 256, 4, 2, 16, qk_norm=True),
    )
}


def new_model(kind: Kind, vocabulary: int, end: int, seed: int) -> PreTrainedModel:
    """A freshly initialised float32 model; what writes into the residual stream starts smaller, as in GPT-2."""
    torch.manual_seed(seed)
    config_class, model_class = (Qwen3Config, Qwen3ForCausalLM) if kind.qk_norm else (LlamaConfig, LlamaForCausalLM)
    model = model_class(
        config_class(
            vocab_size=vocabulary,
            hidden_size=kind.hidden,
            intermediate_size=kind.intermediate,
            num_hidden_layers=kind.layers,
            num_attention_heads=kind.heads,
            num_key_value_heads=kind.key_heads,
            head_dim=kind.head_dim,
            max_position_embeddings=2 * CONTEXT,
            rms_norm_eps=1e-5,
            rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
            tie_word_embeddings=True,
            bos_token_id=end,
            eos_token_id=end,
            use_cache=False,
        )
    )
    for layer in model.model.layers:
        for writer in (layer.self_attn.o_proj, layer.mlp.down_proj):
            torch.nn.init.normal_(writer.weight, std=0.02 / math.sqrt(2 * kind.layers))
    return model
