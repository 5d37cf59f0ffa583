"""A decoder driven through its protocol, beside the whole stock model that it must equal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from gatenorm_stream.families.open import open_model
from gatenorm_stream.measuring.decoder import Decoder, Stream, Tokens
from gatenorm_stream.measuring.transformers_decoder import TransformersDecoder
from gatenorm_stream.sources.open import open_source
from tests.families import tiny


@contextmanager
def opened(path: Path | str) -> Iterator[TransformersDecoder]:
    with open_model(open_source(path), pruned=True) as model:
        yield TransformersDecoder(model)


def behind_layers(decoder: Decoder, tokens: Tokens, replaced: Sequence[Mapping[int, np.ndarray]]) -> Stream:
    """The stream of each row of `tokens`; in each, other attention is replaced by constants, (hidden,)."""
    stream = decoder.embed(tokens)
    for number in range(decoder.layers):
        idle = np.array([number in row for row in replaced])

        def settle(stream, attention, number=number, idle=idle):
            assert attention.shape == stream.shape
            assert not attention[idle].any()
            for row in map(int, np.flatnonzero(idle)):
                attention[row] = replaced[row][number]

        stream = decoder.layer(number, stream, idle, settle, np.arange(len(stream)))
    return stream


@torch.no_grad()
def expected_logits(model, tokens: Tokens, replaced: Sequence[Mapping[int, np.ndarray]]) -> np.ndarray:
    return np.concatenate([_logits(model, tokens[r : r + 1], constants) for r, constants in enumerate(replaced)])


def _logits(model, tokens: Tokens, constants: Mapping[int, np.ndarray]) -> np.ndarray:
    def put(constant):
        return lambda _module, _inputs, out: (torch.from_numpy(constant).expand_as(out[0]).clone(), *out[1:])

    hooks = [tiny.attention(model, n).register_forward_hook(put(c)) for n, c in constants.items()]
    try:
        return model(torch.from_numpy(tokens), use_cache=False).logits.numpy()
    finally:
        for hook in hooks:
            hook.remove()


def losses(logits: np.ndarray, tokens: Tokens) -> np.ndarray:
    likely = torch.from_numpy(logits[:, :-1]).double().log_softmax(-1)
    return -likely.gather(-1, torch.from_numpy(tokens[:, 1:, None]))[..., 0].numpy()
