"""The fixture `checkpoint`, of tests/families and tests/gpu."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory) -> Callable[..., Path]:
    """checkpoint(case): the directory that the stock class saved."""
    from tests.families import tiny

    @functools.cache
    def checkpoint(case) -> Path:
        path = tmp_path_factory.mktemp("source") / case.family
        tiny.make(case).save_pretrained(path)
        return path

    return checkpoint
