from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from checkpoints import llama_config, llama_shapes, random_tensors, write_checkpoint

COMMAND = str(Path(sys.executable).with_name("gatenorm-stream"))
FIXTURE = Path(__file__).parent.parent / "fixtures" / "sotu-5m"

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs the installed command, from an empty directory, with no terminal."""

    def run(*args: object, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [COMMAND, *map(str, args)],
            cwd=tmp_path,
            env={**os.environ, "COLUMNS": "80", "NO_COLOR": "1", "PYTHONUTF8": "1", **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )

    return run


@pytest.fixture
def llama(tmp_path: Path) -> Path:
    """A random Llama of 4 layers in two shards."""
    return write_checkpoint(tmp_path / "llama", random_tensors(llama_shapes()), llama_config())
