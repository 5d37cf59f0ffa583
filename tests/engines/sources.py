"""Small random models made by transformers, with the tokenizer of the fixture model."""

import shutil
from pathlib import Path

import torch
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

SHAPE = {
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 3072,
    "max_position_embeddings": 512,
    "initializer_range": 0.08,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 10_000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}


def mistral() -> PreTrainedModel:
    return MistralForCausalLM(MistralConfig(**SHAPE, sliding_window=None))


def biased_llama() -> PreTrainedModel:
    return LlamaForCausalLM(LlamaConfig(**SHAPE, attention_bias=True, rope_parameters=dict(LLAMA3_ROPE)))


def qwen2() -> PreTrainedModel:
    """Biases in q, k and v alone."""
    return Qwen2ForCausalLM(Qwen2Config(**SHAPE))


def qwen3() -> PreTrainedModel:
    """Norms of q and k, which only the format `transformers` can express."""
    return Qwen3ForCausalLM(Qwen3Config(**SHAPE, head_dim=48))


def write(make, path: Path, tokenizer: Path) -> Path:
    torch.manual_seed(0)
    model = make()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name:
                parameter.add_(0.1 * torch.randn_like(parameter))
            elif name.endswith(".bias"):
                parameter.copy_(0.3 * torch.randn_like(parameter))
    model.save_pretrained(path)
    for file in tokenizer.glob("tokenizer*"):
        shutil.copy(file, path)
    return path
