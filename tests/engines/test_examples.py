"""examples/prune_to_gguf.sh, run as a user would; llama.cpp then writes what the pruned model does."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.engines import stock
from tests.engines.llama_cpp import LlamaCpp

pytestmark = pytest.mark.engines
SCRIPT = Path(__file__).parents[2] / "examples" / "prune_to_gguf.sh"


def test_prune_to_gguf(sotu, reference, ids, tmp_path):
    programs = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["sh", SCRIPT, sotu, tmp_path / "out"],
        env={**os.environ, "PATH": programs},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "pruned.gguf is ready" in done.stdout
    model = LlamaCpp(tmp_path / "out" / "pruned.gguf")
    assert model.greedy(ids, 8) == stock.greedy(reference(sotu, (9,)), ids, 8)
