"""One tiny checkpoint of each case, made by its stock class and pruned by the installed command."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))

collect_ignore_glob = [] if find_spec("torch") and find_spec("transformers") else ["test_*.py"]
os.environ["HF_HUB_OFFLINE"] = "1"


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory) -> Callable[..., Path]:
    """checkpoint(case): the directory that the stock class saved."""
    import tiny

    @functools.cache
    def checkpoint(case) -> Path:
        path = tmp_path_factory.mktemp("source") / case.family
        tiny.make(case).save_pretrained(path)
        return path

    return checkpoint
