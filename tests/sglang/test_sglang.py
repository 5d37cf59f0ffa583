"""SGLang loads `no-op` outputs and computes them, on the CPU by its plain torch attention.

Its own kernels need a GPU, so this shows its config, its loading of weights and its model class, not its engine.
"""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest

from tests.engines import sources, stock
from tests.vllm.silenced import expected

pytestmark = pytest.mark.engines
PROMPT = np.random.default_rng(0).integers(5, 3000, 24).tolist()
NEW = 6
TOLERANCE = 5e-5


@pytest.mark.parametrize(
    ("family", "make", "layers"),
    [
        ("llama", None, (1, 6, 11)),
        ("llama", None, (0,)),
        ("mistral", sources.mistral, (1, 2)),
        ("qwen2", sources.qwen2, (0, 2)),
    ],
)
def test_computes_what_the_stock_model_does_without_that_attention(
    family, make, layers, sotu, prune, cell, tmp_path
):
    """Of the fixture model, where none is made."""
    source = sources.write(make, tmp_path / family, sotu) if make else sotu
    out, answer = prune(source, layers, "--engine", "sglang"), tmp_path / "answer.npz"
    command = [sys.executable, Path(__file__).with_name("sglang_run.py"), out, str(PROMPT), str(NEW), answer]
    done = subprocess.run(command, env={**os.environ, "HF_HUB_OFFLINE": "1"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    got = np.load(answer)
    wanted = expected(source, layers, PROMPT, NEW, "model.layers.{}.self_attn")
    difference = stock.largest_difference(stock.log_probabilities(got["logits"]), wanted.table[-NEW:])
    assert got["tokens"].tolist() == wanted.tokens
    assert difference <= TOLERANCE
    assert wanted.effect > 100 * TOLERANCE
    assert got["cached"] == stock.load(source).config.num_hidden_layers  # for every layer, pruned or not
    cell("sglang", version("sglang"), family, f"no-op, {source.name}, layers {layers}", difference, "loader only")
