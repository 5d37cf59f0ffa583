"""One tiny checkpoint of each case, made by its stock class and pruned by the installed command."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))

collect_ignore_glob = [] if find_spec("torch") and find_spec("transformers") else ["test_*.py"]
os.environ["HF_HUB_OFFLINE"] = "1"
COMMAND = Path(sys.executable).with_name("gatenorm-stream")


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


@pytest.fixture(scope="session")
def prune(tmp_path_factory) -> Callable[..., Path]:
    """prune(source, layers, format): what the command writes."""

    @functools.cache
    def prune(source: Path, layers: tuple[int, ...], form: str) -> Path:
        out = tmp_path_factory.mktemp("pruned") / "out"
        command = [COMMAND, source, "--out", out, "--layers", ",".join(map(str, layers)), "--format", form]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return out

    return prune
