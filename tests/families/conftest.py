"""One tiny checkpoint of each case, made by its stock class and pruned by the installed command."""

from __future__ import annotations

import functools
import json
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


@pytest.fixture
def cell() -> Callable[..., None]:
    """cell(engine, version, family, case, difference, cell="ok"): an entry for docs/compatibility.md.

    Called last in a test, so that only what passed is written, to the folder that GATENORM_RESULTS names.
    """

    def cell(engine: str, version: str, family: str, case: str, difference: float, cell: str = "ok") -> None:
        if folder := os.environ.get("GATENORM_RESULTS"):
            path = Path(folder) / f"{engine}.json"
            entries = json.loads(path.read_text()) if path.exists() else []
            key = {"engine": engine, "version": version, "family": family, "case": case}
            entries = [e for e in entries if not key.items() <= e.items()]
            entries.append({**key, "largest_difference": difference, "cell": cell})
            path.write_text(json.dumps(sorted(entries, key=lambda e: (e["family"], e["case"])), indent=1) + "\n")

    return cell
