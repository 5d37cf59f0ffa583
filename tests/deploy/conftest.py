"""Directories as docs/deploy.md describes them, and the torch models to compare with.

The packages are a dependency group of pyproject.toml; where they are not installed, nothing here is collected.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.deploy import places

collect_ignore_glob = [] if find_spec("ctranslate2") else ["test_*.py"]


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
