"""The reference: a stock transformers model, whole or with attention silenced in memory.

Where o_proj is zero, attention adds nothing to the residual stream: a model without that attention must
compute exactly this.
"""

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel


def load(path, layers=()) -> PreTrainedModel:
    """The model in float32, with the attention of these layers silenced."""
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, trust_remote_code=False).eval()
    with torch.no_grad():
        for layer in layers:
            for parameter in model.model.layers[layer].self_attn.o_proj.parameters():
                parameter.zero_()
    return model


@torch.no_grad()
def logits(model: PreTrainedModel, ids: list[int]) -> np.ndarray:
    """(tokens, vocabulary)"""
    return model(torch.tensor([ids])).logits[0].numpy()


def log_probabilities(logits: np.ndarray) -> np.ndarray:
    return torch.tensor(logits, dtype=torch.float64).log_softmax(-1).numpy()


@torch.no_grad()
def greedy(model: PreTrainedModel, ids: list[int], tokens: int, **options) -> list[int]:
    prompt = torch.tensor([ids])
    limits = {"max_new_tokens": tokens, "min_new_tokens": tokens, "do_sample": False, "pad_token_id": 0}
    return model.generate(prompt, attention_mask=torch.ones_like(prompt), **limits, **options)[0].tolist()


def largest_difference(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a - b).max())


def rounded(path, vector: np.ndarray) -> np.ndarray:
    """To the checkpoint's dtype, as torch rounds, and in float32 again."""
    dtype = AutoConfig.from_pretrained(path).dtype
    return torch.from_numpy(vector).to(dtype).float().numpy()


def with_constants(path, vectors) -> PreTrainedModel:
    """The model in float32, the attention of these layers putting out a vector (hidden,), whatever comes in.

    Each vector is rounded to the checkpoint's dtype.
    """
    model = load(path)
    for layer, vector in vectors.items():
        stored = torch.from_numpy(rounded(path, vector))

        def put_out(_module, _inputs, output, stored=stored):
            return stored.expand_as(output[0]).clone(), *output[1:]

        model.model.layers[layer].self_attn.register_forward_hook(put_out)
    return model
