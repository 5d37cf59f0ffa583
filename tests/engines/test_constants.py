"""Constants in the place of removed attention, against the stock model whose attention puts out these vectors."""

import functools
import json
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.constants import Vectors, compensate, random_vectors
from tests.engines import byte_level, stock
from tests.engines.llama_cpp import LlamaCpp

pytestmark = pytest.mark.engines
TOLERANCE = 1e-4
CASES = [
    ("sotu", (1, 6, 11)),
    ("sotu", (5, 6, 7)),
    ("mistral", (1, 2)),
    ("biased_llama", (1, 3)),
    ("qwen2", (1, 2)),
]


@dataclass(frozen=True)
class Compensated:
    """`expected` and `whole` are logits (tokens, vocabulary): with the vectors, and of the unpruned model."""

    source: Path
    vectors: Vectors
    expected: np.ndarray
    whole: np.ndarray

    @property
    def named(self) -> tuple[str, str]:
        family = json.loads((self.source / "config.json").read_text())["model_type"]
        return family, f"constants, {self.source.name}, layers {tuple(self.vectors)}"


@pytest.fixture(scope="module")
def compensated(tmp_path_factory):
    """compensated(source, vectors, format): the output of the command, made once."""
    made = {}

    def make(source: Path, vectors: Vectors, format: str) -> Path:
        key = source, tuple(vectors), format
        if key not in made:
            made[key] = compensate(source, vectors, format, tmp_path_factory.mktemp("compensated"))
        return made[key]

    return make


@pytest.fixture(scope="module", params=CASES, ids=lambda case: f"{case[0]}-{'-'.join(map(str, case[1]))}")
def case(request, reference, ids) -> Compensated:
    name, layers = request.param
    source = request.getfixturevalue(name)
    vectors = random_vectors(layers, 192 if name == "sotu" else 128)
    expected = stock.logits(stock.with_constants(source, vectors), ids)
    whole, silenced = (stock.logits(reference(source, gone), ids) for gone in ((), layers))
    assert min(stock.largest_difference(other, expected) for other in (whole, silenced)) > 100 * TOLERANCE
    return Compensated(source, vectors, expected, whole)


def load(path):
    return AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, trust_remote_code=True).eval()


@pytest.mark.parametrize("format", ["no-op", "transformers"])
def test_transformers(format, case, compensated, ids, cell, tmp_path):
    model = load(compensated(case.source, case.vectors, format))
    difference = stock.largest_difference(stock.logits(model, ids), case.expected)
    assert difference <= TOLERANCE
    assert stock.greedy(model, ids, 12) == stock.greedy(model, ids, 12, use_cache=False)
    model.save_pretrained(tmp_path)
    assert stock.largest_difference(stock.logits(load(tmp_path), ids), stock.logits(model, ids)) <= 1e-6
    family, described = case.named
    cell("transformers", transformers.__version__, family, f"{format}, {described}", difference)


def test_llama_cpp_through_its_converter(case, compensated, gguf, tokenizer, ids, cell):
    out = compensated(case.source, case.vectors, "no-op")
    difference = differs_in_llama_cpp(gguf(out), case, tokenizer, ids)
    assert difference <= TOLERANCE
    cell("llama.cpp", version("xllamacpp"), *case.named, difference)


@pytest.mark.parametrize("format", ["no-op", "zeroed"])
def test_gguf(format, case, compensated, gguf, tokenizer, ids, cell):
    """It holds them in F32, so what it is given is rounded as in the reference."""
    if case.source.name == "qwen2":
        pytest.skip("the converter wants a tokenizer of its own: below")
    rounded = {layer: stock.rounded(case.source, vector) for layer, vector in case.vectors.items()}
    difference = differs_in_llama_cpp(compensated(gguf(case.source), rounded, format), case, tokenizer, ids)
    assert difference <= TOLERANCE
    family, described = case.named
    cell("llama.cpp", version("xllamacpp"), family, f"GGUF {format}, {described}", difference)


def test_gguf_of_qwen_2(compensated, gguf, sotu, tmp_path, cell):
    """Whose heads rotate as halves."""
    kind = next(kind for kind in byte_level.KINDS if kind.name == "qwen2")
    source = byte_level.write(kind, tmp_path / "source", sotu.parent / "heldout.txt")
    vectors = random_vectors((1, 2), 128)
    tokenizer = AutoTokenizer.from_pretrained(source)
    ids, plain_token = tokenizer("Hello, world! It's 1803").input_ids[:16], tokenizer("the").input_ids[-1]
    expected = stock.log_probabilities(stock.logits(stock.with_constants(source, vectors), ids))
    out = compensated(gguf(source, "f32", kind.name), vectors, "no-op")
    actual = log_probabilities(out, tuple(ids), expected.shape[1], plain_token)
    difference = stock.largest_difference(actual, expected)
    assert difference <= TOLERANCE
    cell("llama.cpp", version("xllamacpp"), "qwen2", "GGUF no-op, constants, layers (1, 2)", difference)


def test_mlx_lm(case, compensated, mlx_lm, ids, cell):
    model = mlx_lm(compensated(case.source, case.vectors, "no-op"))
    difference = stock.largest_difference(model.logits(ids), case.expected)
    assert difference <= TOLERANCE
    assert stock.largest_difference(model.logits_token_by_token(ids), case.expected) <= TOLERANCE
    cell("mlx-lm", version("mlx-lm"), *case.named, difference)


def test_zeroed_where_the_output_projection_has_a_bias(biased_llama, compensated, ids):
    vectors = random_vectors((0, 3), 128)
    model = stock.load(compensated(biased_llama, vectors, "zeroed"))
    expected = stock.logits(stock.with_constants(biased_llama, vectors), ids)
    assert stock.largest_difference(stock.logits(model, ids), expected) <= TOLERANCE


@functools.cache
def log_probabilities(path: Path, ids: tuple[int, ...], vocabulary: int, plain_token: int) -> np.ndarray:
    return LlamaCpp(path).log_probabilities(list(ids), vocabulary, plain_token)


def differs_in_llama_cpp(gguf: Path, case: Compensated, tokenizer, ids) -> float:
    expected = stock.log_probabilities(case.expected)
    plain_token = tokenizer("the").input_ids[-1]
    actual = log_probabilities(gguf, tuple(ids), expected.shape[1], plain_token)
    assert not np.isnan(actual).any()
    return stock.largest_difference(actual, expected)
