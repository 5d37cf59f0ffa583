"""The file that travels along, in older transformers: the oldest that it is known to run in, and some between.

OLDER_TRANSFORMERS names folders with one version each, called by its number, and OLDER_PYTHON an interpreter with
torch, by which check.py runs with each of them (nox -s oldest). The models are those of tests/families that the
oldest knows.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.constants import compensate, random_vectors

HERE = Path(__file__).parent
PYTHON = os.environ.get("OLDER_PYTHON")
VERSIONS = [Path(folder) for folder in os.environ.get("OLDER_TRANSFORMERS", "").split()]
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
    "llava-llama",
    "gemma3-gemma3_text",
    "idefics3-llama",
    "qwen2_5_vl-qwen2",
)

pytestmark = [pytest.mark.engines, pytest.mark.skipif(not PYTHON, reason="nox -s oldest sets OLDER_PYTHON")]


@pytest.fixture(scope="module", params=KNOWN)
def case(request):
    from tests.families import wrapper_cases
    from tests.families.cases import CASES

    return next(case for case in (*CASES, *wrapper_cases.CASES) if str(case) == request.param)


@pytest.fixture(scope="module")
def source(case, tmp_path_factory) -> Path:
    from tests.families import tiny

    path = tmp_path_factory.mktemp("source") / "source"
    tiny.make(case).save_pretrained(path)
    with_older_keys(path / "config.json")
    return path


@pytest.mark.parametrize("version", VERSIONS, ids=lambda folder: folder.name)
def test_pruned_equals_silenced(version, case, source, prune, cell, tmp_path):
    pruned = [prune(source, layers, "--format", "transformers") for layers in [(1, 2), (0, 3)]]
    text = {**case.options, **case.options.get("text_config", {})}
    width = text.get("hidden_size") or text["n_embd"]
    pruned.append(compensate(source, random_vectors((1, 2), width), "transformers", tmp_path))
    environment = {
        **os.environ,
        "PYTHONPATH": str(version),
        "HF_HUB_OFFLINE": "1",
        "HF_MODULES_CACHE": str(tmp_path),
    }
    check = [PYTHON, HERE / "check.py", source, case.auto, case.implementation, *pruned]
    done = subprocess.run(check, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    ran, difference = done.stdout.split()
    assert ran == version.name
    family = getattr(case, "wrapper", case.family)
    cell("transformers", ran, family, f"{case}, layers (1, 2) and (0, 3), constants", float(difference))


def with_older_keys(path: Path) -> None:
    """As the config of a model published in that time: newer versions write other keys."""
    config = json.loads(path.read_text())
    if config["model_type"] == "qwen3_moe":
        config["num_experts"] = config.pop("num_local_experts")
    if config["model_type"] == "qwen2_5_vl":
        rope = config["text_config"].pop("rope_parameters")
        config["text_config"]["rope_scaling"] = {"type": "mrope", "mrope_section": rope["mrope_section"]}
    path.write_text(json.dumps(config))
