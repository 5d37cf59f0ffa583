"""SGLang loads the `no-op` output and computes it, on the CPU by its plain torch attention.

Its own kernels need a GPU, so this shows its config, its loading of weights and its model class, not its engine.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import stock
from silenced import expected

pytestmark = pytest.mark.engines
HERE = Path(__file__).parent
SOTU = HERE.parents[1] / "fixtures" / "sotu-5m"
PROMPT = np.random.default_rng(0).integers(5, 3000, 24).tolist()
NEW = 6
TOLERANCE = 5e-5


def run(*command: object) -> None:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(list(map(str, command)), env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def rows():
    """Rows of sglang.json in the folder that GATENORM_RESULTS names."""
    rows: list[dict] = []
    yield rows
    if folder := os.environ.get("GATENORM_RESULTS"):
        (Path(folder) / "sglang.json").write_text(json.dumps(rows, indent=1) + "\n")


@pytest.mark.parametrize("layers", [(1, 6, 11), (0,)], ids=str)
def test_computes_what_the_stock_model_does_without_that_attention(layers, rows, tmp_path):
    command = Path(sys.executable).with_name("gatenorm-stream")
    out, answer = tmp_path / "out", tmp_path / "answer.npz"
    run(command, SOTU, "--out", out, "--layers", ",".join(map(str, layers)), "--engine", "sglang")
    run(sys.executable, HERE / "sglang_run.py", out, PROMPT, NEW, answer)
    got = np.load(answer)
    wanted = expected(SOTU, layers, PROMPT, NEW, "model.layers.{}.self_attn")
    difference = stock.largest_difference(stock.log_probabilities(got["logits"]), wanted.table[-NEW:])
    assert got["tokens"].tolist() == wanted.tokens
    assert difference <= TOLERANCE
    assert wanted.effect > 100 * TOLERANCE
    rows.append(
        {
            "engine": "sglang",
            "version": version("sglang"),
            "family": "llama",
            "case": f"no-op, without attention in {list(layers)}, CPU, torch_native",
            "largest_difference": difference,
            "cell": "loader only",
        }
    )
    assert got["cached"] == 12  # it allots KV cache for every layer, pruned or not
