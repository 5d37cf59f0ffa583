"""The streamed pass beside stock engines: transformers for safetensors, llama.cpp for GGUF."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from gatenorm_stream.families.open import open_model
from gatenorm_stream.measuring.forward import run
from gatenorm_stream.measuring.numpy_decoder import numpy_decoder
from gatenorm_stream.measuring.variants import Variant
from gatenorm_stream.sources.open import open_source
from tests.constants import compensate, random_vectors
from tests.engines import byte_level, sources, stock
from tests.engines.gguf_variants import variant
from tests.engines.llama_cpp import LlamaCpp
from tests.families import tiny
from tests.families.absence import ROWS
from tests.families.cases import CASES
from tests.families.tiny_checkpoints import checkpoint  # noqa: F401, a fixture

pytestmark = pytest.mark.engines
TOLERANCE = 1e-3
SHAPED = [case for case in CASES if ROWS[case.family].llama_shaped]
LAYERS = (1, 3)
PROMPT = 16


def logits_and_losses(path: Path, ids: list[int]) -> tuple[np.ndarray, np.ndarray]:
    tokens = np.array([ids])
    with open_model(open_source(path), pruned=True) as model, numpy_decoder(model, threads=2) as decoder:
        stream = decoder.embed(tokens)
        for layer in range(decoder.layers):
            stream = decoder.layer(layer, stream, np.zeros(1, bool), lambda before, attention: None, np.arange(1))
        return decoder.logits(stream)[0], decoder.losses(stream, tokens)[0]


def losses(logits: np.ndarray, ids: list[int]) -> np.ndarray:
    return -stock.log_probabilities(logits)[np.arange(len(ids) - 1), ids[1:]]


def assert_alike(path: Path, expected: np.ndarray, ids: list[int]) -> None:
    found, own = logits_and_losses(path, ids)
    assert stock.largest_difference(found, expected) <= TOLERANCE
    assert stock.largest_difference(own, losses(expected, ids)) <= TOLERANCE


@pytest.mark.parametrize("case", SHAPED, ids=str)
def test_every_tiny_model_of_this_shape(case, checkpoint):  # noqa: F811
    path = checkpoint(case)
    ids = np.random.default_rng(0).integers(0, 128, 60).tolist()
    assert_alike(path, stock.logits(tiny.load(path, case), ids), ids)


@pytest.mark.parametrize("name", ["sotu", "mistral", "biased_llama", "qwen2"])
def test_models_with_a_tokenizer(name, request, ids):
    path = request.getfixturevalue(name)
    assert_alike(path, stock.logits(stock.load(path), ids), ids)


def test_yarn(tmp_path, sotu, ids):
    rope = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32, "rope_theta": 10_000.0}

    def make():
        return Qwen2ForCausalLM(Qwen2Config(**sources.SHAPE, rope_parameters=rope))

    path = sources.write(make, tmp_path / "model", sotu)
    assert_alike(path, stock.logits(stock.load(path), ids), ids)


def linear_rope() -> LlamaForCausalLM:
    """Biases everywhere, one matrix for embedding and head."""
    rope = {"rope_type": "linear", "rope_theta": 500.0, "factor": 4.0}
    options = {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True}
    return LlamaForCausalLM(LlamaConfig(**sources.SHAPE, **options, rope_parameters=rope))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_narrow_weights(dtype, tmp_path, sotu, ids):
    def make():
        return linear_rope().to(getattr(torch, dtype))

    path = sources.write(make, tmp_path / "model", sotu)
    assert_alike(path, stock.logits(stock.load(path), ids), ids)


def test_variants_are_silenced_models(sotu, tokenizer):
    """And the means that a compensated one puts in place are those that stock attention put out."""
    text = tokenizer((sotu.parent / "heldout.txt").read_text()[:6000]).input_ids
    choosing, judging = np.array(text[:256]), np.array(text[256:512])
    variants = [Variant(LAYERS), Variant(LAYERS[:1], compensated=True)]
    with open_model(open_source(sotu)) as model, numpy_decoder(model) as decoder:
        outcome = run(decoder, choosing, judging, variants)
    for dropped, found in (((), outcome.losses), (LAYERS, outcome.variants[0].losses)):
        expected = losses(stock.logits(stock.load(sotu, dropped), judging.tolist()), judging.tolist())
        assert stock.largest_difference(found, expected) <= TOLERANCE
    model, seen = stock.load(sotu), []
    hook = model.model.layers[LAYERS[0]].self_attn.register_forward_hook(lambda m, i, o: seen.append(o[0]))
    stock.logits(model, choosing.tolist())
    hook.remove()
    mean = seen[0][0, 1:].mean(0).numpy()
    assert stock.largest_difference(outcome.variants[1].constants[LAYERS[0]], mean) <= 1e-5


def differ_by(ours: Path, theirs: Path, ids: list[int], vocabulary: int, plain_token: int) -> float:
    """The largest difference of a log-probability: numpy on one file, llama.cpp on the other."""
    ids = ids[:PROMPT]
    expected = LlamaCpp(theirs).log_probabilities(ids, vocabulary, plain_token)
    logits, own = logits_and_losses(ours, ids)
    difference = stock.largest_difference(stock.log_probabilities(logits), expected)
    wanted = -expected[np.arange(len(ids) - 1), ids[1:]]
    return max(difference, stock.largest_difference(own, wanted))


@pytest.fixture
def of_the_fixture(tokenizer, ids):
    return ids, len(tokenizer), tokenizer("the").input_ids[-1]


@pytest.mark.parametrize("name", ["sotu", "biased_llama"])
def test_gguf(name, request, gguf, of_the_fixture):
    """Of the latter, `rope_freqs.weight` holds what RoPE of type llama3 divides by."""
    path = gguf(request.getfixturevalue(name))
    assert differ_by(path, path, *of_the_fixture) <= TOLERANCE


def test_gguf_of_qwen2(gguf, sotu, tmp_path):
    source = byte_level.write(byte_level.KINDS[0], tmp_path / "qwen2", sotu.parent / "heldout.txt")
    path, tokenizer = gguf(source, "f32", "qwen2"), AutoTokenizer.from_pretrained(source)
    ids, plain = tokenizer("The people of the United States").input_ids, tokenizer("the").input_ids[-1]
    assert differ_by(path, path, ids, byte_level.VOCABULARY, plain) <= TOLERANCE


@pytest.mark.parametrize(
    ("architecture", "metadata"),
    [
        ("internlm2", {}),
        ("xverse", {}),
        ("exaone", {}),
        ("llama", {"rope.scaling.type": "linear", "rope.scaling.factor": 4.0}),
        ("llama", {"rope.scaling.type": "none", "rope.scaling.factor": 4.0}),
        (
            "exaone",
            {"rope.scaling.type": "yarn", "rope.scaling.factor": 4.0, "rope.scaling.original_context_length": 64},
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else value.get("rope.scaling.type", ""),
)
def test_other_architectures_and_ropes(architecture, metadata, gguf, sotu, tmp_path, of_the_fixture):
    path = variant(gguf(sotu), tmp_path / "source.gguf", architecture, metadata=metadata)
    assert differ_by(path, path, *of_the_fixture) <= TOLERANCE


@pytest.mark.parametrize("dtype", ["F16", "BF16", "Q8_0", "Q4_0", "Q5_1"])
def test_narrow_gguf(dtype, gguf, sotu, tmp_path, of_the_fixture):
    """llama.cpp rounds what such weights are multiplied by to their own width, so that it is given them in F32."""
    narrow = variant(gguf(sotu), tmp_path / "narrow.gguf", dtype=dtype)
    wide = variant(narrow, tmp_path / "wide.gguf", dtype="F32")
    assert differ_by(narrow, wide, *of_the_fixture) <= TOLERANCE


@pytest.mark.parametrize(("dtype", "rounding"), [("F16", 1e-3), ("Q8_0", 2e-2)])
def test_llama_cpp_itself_rounds_activations(dtype, rounding, gguf, sotu, tmp_path, of_the_fixture):
    """The loss of the same file is near all the same."""
    ids, vocabulary, plain_token = of_the_fixture
    path, ids = variant(gguf(sotu), tmp_path / "narrow.gguf", dtype=dtype), ids[:PROMPT]
    expected = LlamaCpp(path).log_probabilities(ids, vocabulary, plain_token)
    loss = -expected[np.arange(len(ids) - 1), ids[1:]].mean()
    assert logits_and_losses(path, ids)[1].mean() == pytest.approx(loss, abs=rounding)


def test_an_output_with_constants(sotu, tmp_path, ids):
    """Beside transformers, which runs it by the file that travels with it."""
    out = compensate(sotu, random_vectors((1, 6, 7), 192), "no-op", tmp_path)
    model = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32, trust_remote_code=True).eval()
    assert_alike(out, stock.logits(model, ids), ids)


def test_a_gguf_output_with_constants(sotu, gguf, tmp_path, of_the_fixture):
    out = compensate(gguf(sotu), random_vectors((1, 6, 7), 192), "no-op", tmp_path)
    assert differ_by(out, out, *of_the_fixture) <= TOLERANCE
