"""InternLM 2, of which transformers has no class: mlx-lm's own makes the model, is scored and runs it pruned."""

from __future__ import annotations

import json
import shutil
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any
from unittest.mock import patch

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten, tree_map
from mlx_lm.models import internlm2

import gatenorm_stream
from tests.conftest import COMMAND
from tests.engines import stock
from tests.engines.mlx_engine import MlxLm
from tests.families import tiny

pytestmark = pytest.mark.engines
TOLERANCE = 1e-5
LAYERS, HIDDEN = 4, 64
SHAPE = {
    "model_type": "internlm2",
    "hidden_size": HIDDEN,
    "num_hidden_layers": LAYERS,
    "intermediate_size": 96,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-5,
    "vocab_size": 3072,
}


@pytest.fixture(scope="module", params=[False, True], ids=["published form", "biases"])
def source(request, tmp_path_factory, sotu) -> Path:
    path = tmp_path_factory.mktemp("internlm2") / "model"
    path.mkdir()
    config = SHAPE | {"bias": request.param}
    mx.random.seed(0)
    model = internlm2.Model(internlm2.ModelArgs.from_dict(config))
    weights = tree_map(lambda x: 0.15 * mx.random.normal(x.shape) + 0.3 * (x.ndim == 1), model.parameters())
    mx.save_safetensors(str(path / "model.safetensors"), dict(tree_flatten(weights)), {"format": "mlx"})
    (path / "config.json").write_text(json.dumps({**config, "architectures": ["InternLM2ForCausalLM"]}))
    for file in sotu.glob("tokenizer*"):
        shutil.copy(file, path)
    return path


def heads(model: nn.Module, layer: int) -> tuple[np.ndarray, np.ndarray]:
    """Q and K, (heads, head_dim, hidden) in float64: what the softmax gets for each unit vector at position 0."""
    seen: dict[str, Any] = {}

    def spy(queries, keys, values, **rest):
        seen.update(q=queries, k=keys)
        return compute(queries, keys, values, **rest)

    compute = internlm2.scaled_dot_product_attention
    vectors = mx.concatenate([mx.zeros((1, HIDDEN)), mx.eye(HIDDEN)])[:, None, :]
    with patch.object(internlm2, "scaled_dot_product_attention", spy):
        model.layers[layer].attention(vectors)
    q, k = (np.array(seen[name])[:, :, 0].astype(np.float64) for name in "qk")
    return tuple((x[1:] - x[0]).transpose(1, 2, 0) for x in (q, k))


class Silent(nn.Module):
    def __call__(self, x, mask=None, cache=None):
        return mx.zeros_like(x)


def test_scores_are_those_of_the_modules_own_heads(source):
    model = MlxLm(source).model
    for reading in ("per-head", "joint", "stored"):
        scores = gatenorm_stream.score(source, reading=reading)
        assert [s.layer for s in scores] == list(range(LAYERS))
        for s in scores:
            assert s.score == pytest.approx(tiny.scores(*heads(model, s.layer))[reading], rel=1e-5)


@pytest.mark.parametrize("layers", [(1,), (0, 3)], ids=str)
def test_zeroed_equals_silenced(layers, source, prune, ids, cell):
    model, whole, silenced = MlxLm(prune(source, layers)), MlxLm(source), MlxLm(source)
    for layer in layers:
        silenced.model.layers[layer].attention = Silent()
    expected = silenced.logits(ids)
    difference = stock.largest_difference(model.logits(ids), expected)
    assert difference <= TOLERANCE
    assert stock.largest_difference(model.logits_token_by_token(ids), expected) <= 10 * TOLERANCE
    assert stock.largest_difference(whole.logits(ids), expected) > 100 * TOLERANCE
    biased = json.loads((source / "config.json").read_text())["bias"]
    case = f"zeroed, {'biases, ' if biased else ''}layers {layers}"
    cell("mlx-lm", version("mlx-lm"), "internlm2", case, difference, "zeroed")


@pytest.mark.parametrize("format", ["no-op", "transformers"])
def test_other_formats_are_refused_by_name(format, source, tmp_path):
    out = tmp_path / "out"
    command = [COMMAND, source, "--out", out, "--layers", "1", "--format", format]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert "model_type=internlm2 stands in the way" in done.stderr
    assert not list(tmp_path.iterdir())
