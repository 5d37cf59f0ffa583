"""vLLM runs outputs of the formats `no-op` and `transformers`, without trust_remote_code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from transformers import AutoTokenizer

from tests.engines import sources, stock
from tests.vllm import vllm_sources
from tests.vllm.silenced import Expected, expected
from tests.vllm.vllm_engine import Vllm, running

pytestmark = pytest.mark.engines
PROMPT = np.random.default_rng(0).integers(5, 3000, 24).tolist()
NEW = 6
GIB = 1 << 30
ROOT = Path(__file__).parents[2]
TOLERANCE = 5e-5
# Unpruned, vLLM's Gemma 2 is 8e-5 from transformers' too.
TOLERANCES = {"Gemma2ForCausalLM": 4 * TOLERANCE}


def differs_by(engine: Vllm, wanted: Expected, tolerance: float = TOLERANCE) -> float:
    """The largest difference, which is within `tolerance`; the pruning itself changes a hundred times as much."""
    tokens, table = engine.continued(PROMPT, NEW)
    difference = stock.largest_difference(table, wanted.table)
    assert tokens == wanted.tokens
    assert difference <= tolerance
    assert wanted.effect > 100 * tolerance
    return difference


@pytest.mark.parametrize("layers", [(1,), (1, 6, 11)], ids=str)
def test_no_op_of_the_fixture_model(layers, sotu, prune, record):
    wanted = expected(sotu, layers, PROMPT, NEW, "model.layers.{}.self_attn")
    with running(prune(sotu, layers, "--format", "no-op")) as engine:
        record("llama", f"no-op, {len(layers)} of 12", differs_by(engine, wanted))
        assert engine.cache() == {layer: 512 for layer in range(12) if layer not in layers}
        block = 128 * sum(engine.cache().values())
        assert GIB - block < engine.cache_tokens() * sum(engine.cache().values()) <= GIB
        tokenizer = AutoTokenizer.from_pretrained(sotu)
        prompt = tokenizer("Fellow citizens of the Senate").input_ids
        text = engine.text("Fellow citizens of the Senate", 12)
    continued = expected(sotu, layers, prompt, 12, "model.layers.{}.self_attn").tokens
    assert text.strip() == tokenizer.decode(continued[len(prompt) :]).strip()


@pytest.mark.parametrize(
    ("make", "layers", "family", "case"),
    [(sources.mistral, (1, 2), "mistral", "no-op"), (sources.biased_llama, (3,), "llama", "biases, no-op")],
)
def test_no_op(make, layers, family, case, sotu, prune, record, tmp_path):
    source = sources.write(make, tmp_path / "source", sotu)
    wanted = expected(source, layers, PROMPT, NEW, "model.layers.{}.self_attn")
    with running(prune(source, layers, "--format", "no-op")) as engine:
        record(family, case, differs_by(engine, wanted))
        assert set(engine.cache()) == set(range(4)) - set(layers)


@pytest.mark.parametrize("architecture", vllm_sources.CONFIGS)
def test_transformers_format(architecture, sotu, prune, record, tmp_path):
    """Layer 0 and another one, of every architecture that is served."""
    source, layers = vllm_sources.write(architecture, tmp_path / "source", sotu), (0, 2)
    out = prune(source, layers, "--format", "transformers")
    wanted = expected(source, layers, PROMPT, NEW, attention_of(out))
    with running(out) as engine:
        tolerance = TOLERANCES.get(architecture, TOLERANCE)
        record(architecture, "transformers", differs_by(engine, wanted, tolerance))
        assert set(engine.cache()) == {1, 3}


def test_tied_embeddings_compiled_and_cached_by_vllm(sotu, prune, record, tmp_path):
    """vLLM keeps compiled models on disk: one with other layers pruned must not be taken for this one."""
    source = vllm_sources.write("Qwen3ForCausalLM", tmp_path / "source", sotu, tie_word_embeddings=True)
    for layers in [(0, 2), (1,)]:
        out = prune(source, layers, "--format", "transformers")
        wanted = expected(source, layers, PROMPT, NEW, attention_of(out))
        with running(out, enforce_eager=False) as engine:
            record("Qwen3ForCausalLM", f"transformers, compiled, {layers}", differs_by(engine, wanted))


def test_engine_in_a_process_of_its_own(sotu, prune, record, tmp_path, monkeypatch):
    monkeypatch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "1")
    source = vllm_sources.write("Qwen3ForCausalLM", tmp_path / "source", sotu)
    out = prune(source, (1, 3), "--format", "transformers")
    wanted = expected(source, (1, 3), PROMPT, NEW, attention_of(out))
    with running(out) as engine:
        record("Qwen3ForCausalLM", "transformers, engine process", differs_by(engine, wanted))


def test_no_op_by_its_own_code_without_the_plugin(sotu, prune, tmp_path):
    out = prune(sotu, (1, 6, 11), "--format", "no-op")
    wanted = expected(sotu, (1, 6, 11), PROMPT, NEW, "model.layers.{}.self_attn")
    script = f"""
from pathlib import Path
import numpy
from tests.vllm.vllm_engine import running
with running(Path({str(out)!r}), trust_remote_code=True) as engine:
    numpy.save({str(tmp_path / "table.npy")!r}, engine.continued({PROMPT}, {NEW})[1])
"""
    environment = {**os.environ, "VLLM_PLUGINS": "none"}
    command = [sys.executable, "-c", script]  # -c puts the working directory on the path
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert stock.largest_difference(np.load(tmp_path / "table.npy"), wanted.table) <= TOLERANCE


def attention_of(checkpoint: Path) -> str:
    form = json.loads((checkpoint / "config.json").read_text())["gatenorm"]
    return f"{form['layers']}.{{}}.{form['attention']}"
