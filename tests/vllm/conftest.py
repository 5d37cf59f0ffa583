"""vLLM in an environment of its own (requirements.txt); where it is not installed, nothing here is collected."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path += [str(HERE), str(HERE.parent / "engines")]  # stock.py and sources.py serve both

if (found := find_spec("vllm")) and found.origin:  # this very folder has no origin
    os.environ |= {
        "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_LOGGING_LEVEL": "ERROR",
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
    }
else:
    collect_ignore_glob = ["test_*.py"]
COMMAND = Path(sys.executable).with_name("gatenorm-stream")

Prune = Callable[[Path, tuple[int, ...], str], Path]


@pytest.fixture(scope="session")
def sotu() -> Path:
    """The fixture model: a trained Llama of 12 layers, in three shards."""
    return HERE.parents[1] / "fixtures" / "sotu-5m"


@pytest.fixture(scope="session")
def prune(tmp_path_factory) -> Prune:
    """prune(source, layers, format): the output of the command."""

    def prune(source: Path, layers: tuple[int, ...], format_: str) -> Path:
        out = tmp_path_factory.mktemp("pruned") / "out"
        command = [COMMAND, source, "--out", out, "--layers", ",".join(map(str, layers)), "--format", format_]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return out

    return prune


@pytest.fixture(scope="session")
def record() -> Iterator[Callable[..., None]]:
    """record(family, case, difference): one row of vllm.json in the folder that GATENORM_RESULTS names."""
    rows: list[dict] = []

    def record(family: str, case: str, difference: float) -> None:
        engine = {"engine": "vllm", "version": version("vllm-cpu")}
        rows.append({**engine, "family": family, "case": case, "largest_difference": difference, "cell": "ok"})

    yield record
    if folder := os.environ.get("GATENORM_RESULTS"):
        (Path(folder) / "vllm.json").write_text(json.dumps(rows, indent=1) + "\n")
