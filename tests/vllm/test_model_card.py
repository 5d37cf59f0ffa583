"""vLLM's block of the model card, run word for word beside the output that it lies in."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import COMMAND, FIXTURE


@pytest.mark.parametrize("format", ["no-op", "zeroed"])
def test_the_block_runs(tmp_path: Path, format: str) -> None:
    subprocess.run([COMMAND, FIXTURE, "--out", tmp_path / "pruned", "--format", format, "--quiet"], check=True)
    card = (tmp_path / "pruned/README.md").read_text("utf-8")
    (code,) = re.findall(r"^### vLLM\n\n```python\n(.*?)```", card, re.MULTILINE | re.DOTALL)
    (tmp_path / "run.py").write_text(code)
    done = subprocess.run(
        [sys.executable, "run.py"],
        cwd=tmp_path,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert re.search(r"\bof the\b", done.stdout), done.stdout
