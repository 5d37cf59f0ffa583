"""Directories as docs/deploy.md describes them, and the torch models to compare with.

The packages are a dependency group of pyproject.toml. Where they are not installed, nothing here is collected but
what needs llama.cpp's programs alone (llama_cpp_from_debian.sh, llama_cpp_tools.sh), if those are there.
"""

from __future__ import annotations

import os
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.deploy import places

PROGRAMS = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
OF_LLAMA_CPP = ["test_gguf.py", "test_gguf_in.py"] if shutil.which("llama-quantize", path=PROGRAMS) else []
ALL = [path.name for path in Path(__file__).parent.glob("test_*.py")]
collect_ignore = [] if find_spec("ctranslate2") else [name for name in ALL if name not in OF_LLAMA_CPP]


@pytest.fixture(scope="session")
def pruned(tmp_path_factory, sotu) -> Path:
    """A directory in which MODEL is the fixture model, after the recipe `Prune`, with two texts."""
    directory = places.pruned(tmp_path_factory.mktemp("pruned"), sotu)
    places.add_texts(directory)
    return directory


@pytest.fixture(scope="session")
def whole(tmp_path_factory, sotu) -> Path:
    """A directory in which what the recipes call `pruned` and `zeroed` is the fixture model itself."""
    directory = places.whole(tmp_path_factory.mktemp("whole"), sotu)
    places.add_texts(directory)
    return directory


@pytest.fixture(scope="session")
def ids(tokenizer) -> list[int]:
    return tokenizer("The Congress shall have paid $15,000,000 in 1803, and that’s a fact — naïve.").input_ids


@pytest.fixture(scope="session")
def reference(pruned):
    """The stock transformers model, with zeroes for the attention that is gone."""
    from tests.engines import stock

    return stock.load(pruned / "zeroed")


@pytest.fixture(scope="session")
def whole_reference(sotu):
    """The stock transformers model, unpruned."""
    from tests.engines import stock

    return stock.load(sotu)


@pytest.fixture(scope="session")
def continuation(reference, tokenizer) -> str:
    """What the recipes print: the model's greedy continuation."""
    from tests.engines import stock

    return tokenizer.decode(stock.greedy(reference, tokenizer("The people of the United").input_ids, 16))
