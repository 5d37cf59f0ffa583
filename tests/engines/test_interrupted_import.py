"""A signal while torch is loaded for a model that numpy doesn't run."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import FIXTURE
from tests.signals.ending import ENDS, ends

LOAD = """
import ctypes, importlib.util, pathlib, time
library = pathlib.Path(importlib.util.find_spec("torch").origin).with_name("lib") / "libtorch_python.so"
begun = time.monotonic()
ctypes.CDLL(str(library))
print(time.monotonic() - begun)
"""


def _seconds_of_loading() -> float:
    """The system's loader takes no signal, and lets no other thread of Python run."""
    return float(subprocess.run([sys.executable, "-c", LOAD], capture_output=True, text=True, check=True).stdout)


def _loads_torch(process: subprocess.Popen[str]) -> bool:
    return "libtorch_cpu" in Path(f"/proc/{process.pid}/maps").read_text()


@pytest.mark.parametrize("number", ENDS, ids=lambda number: number.name)
def test_a_signal_ends_the_import_of_torch(tmp_path: Path, number: signal.Signals) -> None:
    model = shutil.copytree(FIXTURE, tmp_path / "model")
    config = json.loads((model / "config.json").read_text())
    config |= {"model_type": "granite", "architectures": ["GraniteForCausalLM"]}
    (model / "config.json").write_text(json.dumps(config))
    ends(["measure", model], _loads_torch, number, tmp_path, os.environ, more=_seconds_of_loading())
