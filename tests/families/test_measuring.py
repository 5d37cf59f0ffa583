"""Every family, measured a layer at a time, equals its whole stock model."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch

import gatenorm_stream
from gatenorm_stream.measuring.forward import run
from tests.constants import compensate, random_vectors
from tests.families import tiny, wrapper_cases
from tests.families.cases import CASES
from tests.families.measured import behind_layers, expected_logits, losses, opened

pytestmark = pytest.mark.engines
TOLERANCE = 1e-4
ROWS, LENGTH = 4, 13


def rows_of(case, hidden):
    """Unpruned twice, two sublayers silenced (one where there are two), the same replaced by constants."""
    layers = case.attention[:1] if len(case.attention) == 2 else (case.attention[0], case.attention[2])
    rng = np.random.default_rng(3)
    constants = {n: rng.normal(size=hidden).astype(np.float32) for n in layers}
    return [{}, {}, {n: np.zeros(hidden, np.float32) for n in layers}, constants]


@pytest.mark.parametrize("case", [*CASES, *wrapper_cases.CASES], ids=str)
def test_losses_are_those_of_the_whole_model(case, checkpoint):
    path = checkpoint(case)
    stock = tiny.load(path, case)
    tokens = np.random.default_rng(1).integers(3, 120, (ROWS, LENGTH))
    with opened(path) as decoder:
        replaced = rows_of(case, stock.config.get_text_config().hidden_size)
        stream = behind_layers(decoder, tokens, replaced)
        actual, actual_losses = decoder.logits(stream), decoder.losses(stream, tokens)
    expected = expected_logits(stock, tokens, replaced)
    assert np.abs(actual - expected).max() <= TOLERANCE * np.abs(expected).max()
    assert np.abs(actual_losses - losses(expected, tokens)).max() <= TOLERANCE
    assert np.abs(expected[2:] - expected_logits(stock, tokens[2:], [{}, {}])).max() > 100 * TOLERANCE


@pytest.mark.parametrize("case", [*CASES, *wrapper_cases.CASES], ids=str)
def test_outputs_measured_from_their_own_bytes(case, checkpoint, tmp_path):
    path = checkpoint(case)
    layers = case.attention[-2:] if len(case.attention) > 2 else case.attention[:1]
    hidden = tiny.load(path, case).config.get_text_config().hidden_size
    vectors = random_vectors(layers, hidden)
    plain = gatenorm_stream.plan(path, layers=layers, format="transformers")
    gatenorm_stream.prune(plain, tmp_path / "plain")
    tokens = np.random.default_rng(1).integers(3, 120, (1, LENGTH))
    silenced = {n: np.zeros(hidden, np.float32) for n in layers}
    with opened(path) as decoder:
        whole, *expected = (
            decoder.losses(behind_layers(decoder, tokens, [replaced]), tokens)
            for replaced in ({}, silenced, vectors)
        )
    for out, wanted in zip(
        (tmp_path / "plain", compensate(path, vectors, "transformers", tmp_path)), expected, strict=True
    ):
        with opened(out) as decoder:
            found = run(decoder, tokens[0], tokens[0])
        assert [s.layer for s in found.sublayers] == [n for n in case.attention if n not in layers]
        assert np.abs(found.losses - wanted).max() <= 1e-5
        assert np.abs(wanted - whole).max() > 1e-3


@pytest.mark.parametrize("case", CASES, ids=str)
def test_added_is_what_the_stream_gets(case, checkpoint):
    """Where the MLP is silent, a layer changes the stream by what attention adds."""
    with opened(checkpoint(case)) as decoder:
        tokens = np.random.default_rng(1).integers(3, 120, (1, 7))
        number, added = case.attention[0], []
        layer = decoder._stock.layers[number]
        silent = [m for name, m in layer.named_children() if name in MLP]
        assert silent
        hooks = [m.register_forward_hook(silence) for m in silent]
        stream = decoder.embed(tokens)
        for n in range(number + 1):
            before = stream
            look = partial(lambda n, _, a: added.append(decoder.added(n, a)), n)
            stream = decoder.layer(n, stream, np.zeros(1, bool), look, np.arange(1))
        for hook in hooks:
            hook.remove()
    assert np.abs(added[-1]).max() > 0.01
    assert np.abs(before + added[-1] - stream).max() <= 1e-5 * np.abs(stream).max()


MLP = ("mlp", "feed_forward", "block_sparse_moe", "shared_mlp")


def silence(_module, _inputs, out):
    return (torch.zeros_like(out[0]), *out[1:]) if isinstance(out, tuple) else torch.zeros_like(out)
