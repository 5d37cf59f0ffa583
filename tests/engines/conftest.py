"""Checkpoints pruned by the installed command, each made once a session.

The engines are a dependency group of pyproject.toml; where they are not installed, nothing here is collected.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.engines.case import Case

collect_ignore_glob = [] if find_spec("xllamacpp") else ["test_*.py"]

CASES = [
    ("sotu", (1,)),
    ("sotu", (6,)),
    ("sotu", (11,)),
    ("sotu", (1, 6, 11)),
    ("mistral", (1, 2)),
    ("biased_llama", (3,)),
    ("qwen2", (1, 2)),
]


@pytest.fixture(scope="session")
def mistral(tmp_path_factory, sotu) -> Path:
    from tests.engines import sources

    return sources.write(sources.mistral, tmp_path_factory.mktemp("source") / "mistral", sotu)


@pytest.fixture(scope="session")
def biased_llama(tmp_path_factory, sotu) -> Path:
    """Biases in q, k, v and o, and RoPE of type llama3."""
    from tests.engines import sources

    return sources.write(sources.biased_llama, tmp_path_factory.mktemp("source") / "llama", sotu)


@pytest.fixture(scope="session")
def qwen2(tmp_path_factory, sotu) -> Path:
    from tests.engines import sources

    return sources.write(sources.qwen2, tmp_path_factory.mktemp("source") / "qwen2", sotu)


@pytest.fixture(scope="session")
def qwen3(tmp_path_factory, sotu) -> Path:
    from tests.engines import sources

    return sources.write(sources.qwen3, tmp_path_factory.mktemp("source") / "qwen3", sotu)


@pytest.fixture(scope="session", params=CASES, ids=lambda case: f"{case[0]}-{'-'.join(map(str, case[1]))}")
def case(request, prune) -> Case:
    """In the format `no-op`, which all engines load."""
    name, layers = request.param
    source = request.getfixturevalue(name)
    return Case(source, layers, prune(source, layers, "--format", "no-op"))


@pytest.fixture(scope="session")
def pruned(sotu, prune) -> Case:
    """The fixture model without three of its twelve attention sublayers."""
    layers = (1, 6, 11)
    return Case(sotu, layers, prune(sotu, layers, "--format", "no-op"))


@pytest.fixture(scope="session")
def sentence() -> str:
    return "The people of the United States — naïve or not — paid $15,000,000 in 1803, and that’s a fact."


@pytest.fixture(scope="session")
def ids(tokenizer, sentence) -> list[int]:
    return tokenizer(sentence).input_ids[:24]


@pytest.fixture(scope="session")
def reference():
    """reference(source, layers): the stock model, these layers' attention silenced."""
    from tests.engines import stock

    return functools.cache(stock.load)


@pytest.fixture(scope="session")
def gguf(tmp_path_factory) -> Callable[..., Path]:
    """gguf(checkpoint, *how): converted for llama.cpp."""
    from tests.engines import llama_cpp

    @functools.cache
    def gguf(checkpoint: Path, *how: str) -> Path:
        folder = tmp_path_factory.mktemp("gguf")
        checkpoint = checkpoint if how[1:] else llama_cpp.with_tokenizer_json_as_it_is(checkpoint, folder)
        return llama_cpp.convert(checkpoint, folder / "model.gguf", *how)

    return gguf


@pytest.fixture(scope="session")
def mlx_lm():
    """mlx_lm(checkpoint)"""
    from tests.engines.mlx_engine import MlxLm

    return functools.cache(MlxLm)
