"""Every family, measured a layer at a time, equals its whole stock model."""

from __future__ import annotations

import numpy as np
import pytest
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
