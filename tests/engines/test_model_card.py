"""The commands of the model card, run word for word beside the output that it lies in."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from gguf import GGUFReader

from tests.conftest import COMMAND, FIXTURE

ENVIRONMENT = {"HF_HUB_OFFLINE": "1", "OMP_WAIT_POLICY": "passive"}


def blocks(card: str, heading: str) -> list[tuple[str, str]]:
    (section,) = re.findall(rf"^### {re.escape(heading)}$(.*?)(?=^#|\Z)", card, re.MULTILINE | re.DOTALL)
    return re.findall(r"```(sh|python)\n(.*?)```", section, re.DOTALL)


@pytest.fixture(scope="module", params=["no-op", "transformers", "zeroed"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(request.param)
    subprocess.run([COMMAND, FIXTURE, "--out", folder / "pruned", "--format", request.param, "--quiet"], check=True)
    return folder


@pytest.mark.parametrize("engine", ["transformers", "llama.cpp", "mlx-lm"])
def test_the_blocks_run(folder: Path, engine: str) -> None:
    card = (folder / "pruned/README.md").read_text("utf-8")
    if f"### {engine}\n" not in card:
        assert "Format `transformers`" in card
        return
    outputs = [run_block(folder, language, code) for language, code in blocks(card, engine)]
    if engine == "llama.cpp":
        reader = GGUFReader(folder / "pruned.gguf")
        scores = reader.fields["tokenizer.ggml.scores"]
        assert [scores.parts[part][0] for part in scores.data[:3]] == [0, -1, -2]
    else:
        (shown,) = outputs
        assert re.search(r"\bof the\b", shown), shown


def run_block(folder: Path, language: str, code: str) -> str:
    interpreter = ["bash", "-euo", "pipefail"] if language == "sh" else [sys.executable]
    programs = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        [*interpreter, "-c", code],
        cwd=folder,
        env={**os.environ, "PATH": programs, **ENVIRONMENT},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, f"{code}\n{done.stderr}"
    return done.stdout
