"""vLLM runs outputs with constants in the place of attention: its own DeciLM class, and the plugin's classes."""

from __future__ import annotations

import pytest

from tests.constants import compensate, random_vectors
from tests.engines import stock
from tests.vllm import vllm_sources
from tests.vllm.silenced import expected_of
from tests.vllm.test_vllm import NEW, PROMPT, TOLERANCE, TOLERANCES, attention_of, differs_by
from tests.vllm.vllm_engine import running

pytestmark = pytest.mark.engines


@pytest.mark.parametrize("layers", [(1, 6, 11), (5, 6, 7)], ids=str)
def test_no_op(layers, sotu, record, tmp_path):
    vectors = {layer: stock.rounded(sotu, v) for layer, v in random_vectors(layers, 192).items()}
    wanted = expected_of(sotu, vectors, PROMPT, NEW, "model.layers.{}.self_attn")
    with running(compensate(sotu, vectors, "no-op", tmp_path)) as engine:
        record("llama", f"no-op, constants, {layers}", differs_by(engine, wanted))
        assert set(engine.cache()) == set(range(12)) - set(layers)


@pytest.mark.parametrize("architecture", vllm_sources.CONFIGS)
def test_transformers_format(architecture, sotu, record, tmp_path):
    """Layer 0 and another one, of every architecture that is served."""
    source = vllm_sources.write(architecture, tmp_path / "source", sotu)
    vectors = random_vectors((0, 2), 128)
    out = compensate(source, vectors, "transformers", tmp_path)
    wanted = expected_of(source, vectors, PROMPT, NEW, attention_of(out))
    with running(out) as engine:
        tolerance = TOLERANCES.get(architecture, TOLERANCE)
        record(architecture, "transformers, constants", differs_by(engine, wanted, tolerance))
        assert set(engine.cache()) == {1, 3}


def test_compiled(sotu, record, tmp_path):
    """vLLM keeps compiled models on disk: one without constants must not be taken for this one."""
    source = vllm_sources.write("Qwen3ForCausalLM", tmp_path / "source", sotu)
    for size in (0.3, 0.5):
        vectors = random_vectors((0, 2), 128, size)
        (folder := tmp_path / str(size)).mkdir()
        out = compensate(source, vectors, "transformers", folder)
        wanted = expected_of(source, vectors, PROMPT, NEW, attention_of(out))
        with running(out, enforce_eager=False) as engine:
            record("Qwen3ForCausalLM", f"transformers, constants, compiled, {size}", differs_by(engine, wanted))
