"""The fixture model is what fixtures/README.md says, and goes through the command."""

from __future__ import annotations

import json
from pathlib import Path

from tests.checkpoints import read_tensors
from tests.conftest import FIXTURE, Run


def test_its_form() -> None:
    config = json.loads((FIXTURE / "config.json").read_text("utf-8"))
    assert config["architectures"] == ["LlamaForCausalLM"]
    assert config["num_hidden_layers"] >= 12
    assert config["num_key_value_heads"] < config["num_attention_heads"]
    assert config["intermediate_size"] % 256 == 0
    assert config["hidden_size"] // config["num_attention_heads"] == config["head_dim"]
    assert len(list(FIXTURE.glob("model-0000?-of-00003.safetensors"))) == 3
    tensors = read_tensors(FIXTURE)
    assert {dtype for dtype, _, _ in tensors.values()} == {"BF16"}
    index = json.loads((FIXTURE / "model.safetensors.index.json").read_text("utf-8"))
    assert index["metadata"]["total_size"] == sum(len(data) for _, _, data in tensors.values())
    everything = [p for p in FIXTURE.parent.rglob("*") if p.is_file() and "__pycache__" not in p.parts]
    assert sum(p.stat().st_size for p in everything) <= 12_000_000


def test_the_whole_job(run: Run, tmp_path: Path) -> None:
    assert run(FIXTURE, "--out", "out").returncode == 0
    done = run("verify", "out", "--against", FIXTURE)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "out/gatenorm.json").read_text("utf-8"))["dropped"] == [9]
