"""A slice of `make fuzz`, always the same one: 10,000 cases in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_ten_thousand_hostile_cases(tmp_path: Path) -> None:
    script = Path(__file__).with_name("run.py")
    done = subprocess.run(
        [sys.executable, str(script), "--cases", "10000", "--seed", "7"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "all              10000 cases" in done.stdout
