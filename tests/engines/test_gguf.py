"""Pruned GGUF files in llama.cpp, against the zeroed model that the stock converter made."""

import functools
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
from transformers import AutoTokenizer

import gatenorm_stream
from tests.engines import byte_level, stock
from tests.engines.byte_level import KINDS, Kind
from tests.engines.gguf_variants import variant
from tests.engines.llama_cpp import LlamaCpp

pytestmark = pytest.mark.engines
TOLERANCE = 1e-4
LAYERS = (1, 6, 11)
TEXTS = ["Hello, world! It's 1803 — naïve or not.", "  two\n\nlines\tand 12,345 ☃", "Fellow-Citizens of the Senate"]


@pytest.fixture(scope="module")
def prune_gguf(prune):
    """prune_gguf(file, layers, *options): the output of the command, verified."""

    @functools.cache
    def prune_gguf(source: Path, layers: tuple[int, ...], *options: str) -> Path:
        out = prune(source, layers, *options)
        gatenorm_stream.verify(out, against=source)
        return out

    return prune_gguf


@functools.cache
def log_probabilities(path: Path, ids: tuple[int, ...], vocabulary: int, plain_token: int) -> np.ndarray:
    found = LlamaCpp(path).log_probabilities(list(ids), vocabulary, plain_token)
    assert not np.isnan(found).any()
    return found


@pytest.fixture
def differ_by(tokenizer, ids):
    """differ_by(one, other): the largest difference of two files with the fixture model's tokenizer."""
    shown = tuple(ids), len(tokenizer), tokenizer("the").input_ids[-1]
    return lambda a, b: stock.largest_difference(log_probabilities(a, *shown), log_probabilities(b, *shown))


@pytest.mark.parametrize(
    ("name", "layers"), [("sotu", LAYERS), ("sotu", (11,)), ("mistral", (1, 2)), ("biased_llama", (3,))]
)
def test_equals_the_zeroed_model(name, layers, request, prune, prune_gguf, gguf, differ_by, cell):
    source = request.getfixturevalue(name)
    whole, expected = gguf(source), gguf(prune(source, layers, "--format", "zeroed"))
    difference = differ_by(prune_gguf(whole, layers, "--format", "no-op"), expected)
    assert difference <= TOLERANCE
    assert differ_by(prune_gguf(whole, layers, "--format", "zeroed"), expected) <= TOLERANCE
    assert differ_by(whole, expected) > 100 * TOLERANCE
    family = {"sotu": "llama", "biased_llama": "llama"}.get(name, name)
    cell("llama.cpp", version("xllamacpp"), family, f"GGUF, {name}, {len(layers)} gone", difference)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_byte_level_tokenizers(kind: Kind, prune, prune_gguf, gguf, sotu, tmp_path_factory, cell):
    """Qwen 2.5's, SmolLM 2's and Mistral Nemo's; the last model's heads are wider than hidden_size / heads."""
    source = byte_level.write(kind, tmp_path_factory.mktemp("source") / kind.name, sotu.parent / "heldout.txt")
    layers = (1, 2)
    whole = gguf(source, "f32", kind.name)
    expected = gguf(prune(source, layers, "--format", "zeroed"), "f32", kind.name)
    out = prune_gguf(whole, layers, "--format", "no-op")
    tokenizer = AutoTokenizer.from_pretrained(source)
    before, after = LlamaCpp(whole), LlamaCpp(out)
    for text in TEXTS:
        cut, expected_ids = before.tokenize(text), tokenizer(text).input_ids
        assert cut[-len(expected_ids) :] == expected_ids  # with tekken, llama.cpp puts a token before the text
        assert after.tokenize(text) == cut
    ids, plain = tuple(tokenizer(TEXTS[0]).input_ids[:16]), tokenizer("the").input_ids[-1]
    shown = ids, byte_level.VOCABULARY, plain
    difference = stock.largest_difference(log_probabilities(out, *shown), log_probabilities(expected, *shown))
    assert difference <= TOLERANCE
    effect = stock.largest_difference(log_probabilities(whole, *shown), log_probabilities(expected, *shown))
    assert effect > 100 * TOLERANCE
    family = {"qwen2": "qwen2", "smollm": "llama", "tekken": "mistral"}[kind.name]
    cell("llama.cpp", version("xllamacpp"), family, f"GGUF, {kind.name} tokenizer, 2 gone", difference)


@pytest.mark.parametrize(
    ("architecture", "metadata"),
    [
        ("internlm2", {}),
        ("xverse", {}),
        ("exaone", {}),
        ("llama", {"rope.scaling.type": "linear", "rope.scaling.factor": 4.0}),
        (
            "llama",
            {"rope.scaling.type": "yarn", "rope.scaling.factor": 4.0, "rope.scaling.original_context_length": 64},
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else value.get("rope.scaling.type", ""),
)
def test_other_architectures_and_ropes(architecture, metadata, gguf, sotu, prune_gguf, differ_by, tmp_path, cell):
    """The fixture model's numbers under other architectures: no model of theirs, but the same computation."""
    source = variant(gguf(sotu), tmp_path / "source.gguf", architecture, metadata=metadata)
    removed, zeroed = (prune_gguf(source, LAYERS, "--format", form) for form in ("no-op", "zeroed"))
    difference = differ_by(removed, zeroed)
    assert difference <= TOLERANCE
    assert differ_by(source, zeroed) > 100 * TOLERANCE
    if architecture == "internlm2":  # which has no class in transformers to compare with
        cell("llama.cpp", version("xllamacpp"), architecture, "GGUF, removed against zeroed", difference)


@pytest.mark.parametrize("dtype", ["F16", "BF16", "Q8_0", "Q4_0", "Q5_1"])
def test_quantised(dtype, gguf, sotu, prune_gguf, differ_by, tmp_path):
    source = variant(gguf(sotu), tmp_path / "source.gguf", dtype=dtype)
    removed, zeroed = (prune_gguf(source, LAYERS, "--format", form) for form in ("no-op", "zeroed"))
    noise = differ_by(source, gguf(sotu))
    assert differ_by(removed, zeroed) <= max(TOLERANCE, 0.1 * noise)
    assert differ_by(source, zeroed) > 100 * TOLERANCE


def test_scores_are_those_of_the_checkpoint(gguf, sotu):
    """The converter reorders the rows of q and k within a head; F16 loses the rest."""
    expected = [s.score for s in gatenorm_stream.score(sotu)]
    for kind in ("f32", "f16"):
        assert [s.score for s in gatenorm_stream.score(gguf(sotu, kind))] == pytest.approx(expected, rel=1e-3)


def test_caches_only_the_kept_layers(gguf, sotu, prune_gguf):
    whole = LlamaCpp(gguf(sotu), exact=False, context=1024).cache_size()
    kept = LlamaCpp(prune_gguf(gguf(sotu), LAYERS), exact=False, context=1024).cache_size()
    assert kept.keys == pytest.approx(whole.keys * 9 / 12, abs=0.01)
    assert kept.values == pytest.approx(whole.values * 9 / 12, abs=0.01)


def test_gguf_dump_reads_it(gguf, sotu, prune_gguf):
    command = [sys.executable, "-m", "gguf.scripts.gguf_dump", prune_gguf(gguf(sotu), LAYERS)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "deci.attention.head_count" in done.stdout
