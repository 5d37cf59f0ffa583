"""The file that travels along, in the oldest transformers that it is known to run in: check.py runs there.

OLDEST_PYTHON is the interpreter of that environment (make test-oldest). The models are those of tests/families that
this version knows.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent / "families"))
PYTHON = os.environ.get("OLDEST_PYTHON")
COMMAND = Path(sys.executable).with_name("gatenorm-stream")
KNOWN = (
    "llama",
    "mistral-window",
    "mixtral",
    "qwen2",
    "qwen3",
    "qwen3_moe",
    "gemma2",
    "gemma3_text",
    "phi3",
    "olmo2",
    "cohere2",
    "granite",
    "stablelm-parallel",
    "falcon-40B",
    "gpt_neox-parallel",
    "gpt2",
    "starcoder2",
    "deepseek_v3",
)

pytestmark = [pytest.mark.engines, pytest.mark.skipif(not PYTHON, reason="make test-oldest sets OLDEST_PYTHON")]


@pytest.mark.parametrize("layers", ["1,2", "0,3"])
@pytest.mark.parametrize("name", KNOWN)
def test_pruned_equals_silenced(name: str, layers: str, tmp_path: Path) -> None:
    import tiny
    from cases import CASES

    case = next(case for case in CASES if str(case) == name)
    source, out = tmp_path / "source", tmp_path / "out"
    tiny.make(case).save_pretrained(source)
    with_older_keys(source / "config.json")
    command = [COMMAND, source, "--out", out, "--layers", layers, "--format", "transformers"]
    subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=True)
    check = [PYTHON, HERE / "check.py", source, out, layers, case.implementation]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_MODULES_CACHE": str(tmp_path / "modules")}
    done = subprocess.run(check, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("ok")


def with_older_keys(path: Path) -> None:
    """As the config of a model published in that time: newer versions write another key."""
    config = json.loads(path.read_text())
    if config["model_type"] == "qwen3_moe":
        config["num_experts"] = config.pop("num_local_experts")
    path.write_text(json.dumps(config))
