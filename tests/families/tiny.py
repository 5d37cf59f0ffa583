"""Tiny random models of stock classes, and what their own modules say of attention."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from importlib import import_module
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
import transformers

from tests.families.cases import Case

ATTENTION = ("self_attn", "attention", "self_attention", "attn")
NORMS = ("q_norm", "k_norm", "q_layernorm", "k_layernorm", "q_a_layernorm", "kv_a_layernorm")


def make(case: Case) -> transformers.PreTrainedModel:
    """The stock model with random weights, large enough to tell layers apart, and norms that are not 1."""
    torch.manual_seed(0)
    config = getattr(transformers, case.config)(**case.options)
    config._attn_implementation = case.implementation
    model = getattr(transformers, case.model)(config).eval()
    for parameter in model.parameters():
        parameter.data = 0.15 * torch.randn_like(parameter) + (0.0 if parameter.ndim > 1 else 0.3)
    return model


def load(path: Path, case: Case, **options) -> transformers.PreTrainedModel:
    auto = getattr(transformers, case.auto)
    return auto.from_pretrained(path, attn_implementation=case.implementation, **options).eval()


def decoder_layers(model: transformers.PreTrainedModel) -> torch.nn.ModuleList:
    layers = model.config.get_text_config().num_hidden_layers
    return next(m for m in model.modules() if isinstance(m, torch.nn.ModuleList) and len(m) == layers)


def attention(model: transformers.PreTrainedModel, layer: int) -> torch.nn.Module:
    decoder = decoder_layers(model)[layer]
    return next(getattr(decoder, name) for name in ATTENTION if hasattr(decoder, name))


def silenced(
    model: transformers.PreTrainedModel, layers: tuple[int, ...]
) -> AbstractContextManager[transformers.PreTrainedModel]:
    """The output of these layers' attention is zero: what a model without that attention must equal."""
    return putting_out(model, dict.fromkeys(layers, torch.zeros(())))


@contextmanager
def putting_out(
    model: transformers.PreTrainedModel, vectors: Mapping[int, torch.Tensor]
) -> Iterator[transformers.PreTrainedModel]:
    """The attention of these layers puts out a vector (hidden,) at every token, whatever comes in."""

    def put_out(vector, output):
        return vector.expand_as(output[0]).clone(), *output[1:]

    hooks = [
        attention(model, n).register_forward_hook(lambda _m, _i, output, v=vector: put_out(v, output))
        for n, vector in vectors.items()
    ]
    try:
        yield model
    finally:
        for hook in hooks:
            hook.remove()


@torch.no_grad()
def heads(model: transformers.PreTrainedModel, layer: int) -> list[np.ndarray]:
    """Q and K, (heads, head_dim, hidden) in float64, as this layer's softmax sees them, norms aside.

    Attention is fed each unit vector at position 0, where rotary embedding turns nothing, and queries and keys are
    caught on their way into the softmax.
    """
    module = attention(model, layer)
    removed = {(m, n): getattr(m, n) for m in module.modules() for n in NORMS if hasattr(m, n)}
    for owner, name in removed:
        setattr(owner, name, torch.nn.Identity())
    text = model.config.get_text_config()
    hidden = text.hidden_size
    vectors = torch.cat([torch.zeros(1, hidden), torch.eye(hidden)])[:, None, :]

    def feed(_module, args, kwargs):
        if "hidden_states" in kwargs:
            return args, {**kwargs, "hidden_states": vectors}
        return (vectors, *args[1:]), kwargs

    hook = module.register_forward_pre_hook(feed, with_kwargs=True)
    try:
        with caught(module) as seen:
            model(torch.ones(hidden + 1, 1, dtype=torch.long), use_cache=False)
    finally:
        hook.remove()
        for (owner, name), norm in removed.items():
            setattr(owner, name, norm)
    return [(x[1:, :, 0] - x[:1, :, 0]).double().permute(1, 2, 0).numpy() for x in seen]


@contextmanager
def caught(module: torch.nn.Module) -> Iterator[list[torch.Tensor]]:
    """Fills in the queries and keys, (batch, heads, tokens, head_dim), of the first softmax inside `module`."""
    seen: list[torch.Tensor] = []
    inside = False

    def enter(*_):
        nonlocal inside
        inside = True

    def leave(*_):
        nonlocal inside
        inside = False

    def spy(function, first):
        def spied(*args, **kwargs):
            if inside and not seen:
                seen.extend(
                    kwargs.get(n, args[first + i] if first + i < len(args) else None)
                    for i, n in enumerate(("query", "key"))
                )
            return function(*args, **kwargs)

        return spied

    hooks = [module.register_forward_pre_hook(enter), module.register_forward_hook(leave)]
    source, functional = import_module(type(module).__module__), torch.nn.functional
    places = [(functional, "scaled_dot_product_attention", 0), (source, "eager_attention_forward", 1)]
    places.append((type(module), "_attn", 1))
    with ExitStack() as patched:
        for owner, name, first in places:
            if hasattr(owner, name):
                patched.enter_context(patch.object(owner, name, spy(getattr(owner, name), first)))
        try:
            yield seen
        finally:
            for hook in hooks:
                hook.remove()


def scores(query: np.ndarray, key: np.ndarray) -> dict[str, float]:
    """The three readings by their definition, forming every (hidden, hidden) product.

    `key` may hold a key head once for each query head that uses it.
    """
    key = np.stack([k for g, k in enumerate(key) if not g or not np.array_equal(k, key[g - 1])])
    group = len(query) // len(key)
    products = [q.T @ key[h // group] for h, q in enumerate(query)]
    return {
        "per-head": math.sqrt(sum(float(np.sum(p**2)) for p in products)),
        "joint": float(np.linalg.norm(sum(products))),
        "stored": float(np.linalg.norm(query.reshape(-1, query.shape[2]) @ key.reshape(-1, key.shape[2]).T)),
    }
