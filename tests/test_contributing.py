"""CONTRIBUTING.md's two worked examples, followed to the letter on a copy of the package."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.checkpoints import llama_config, llama_shapes, random_tensors, read_tensors, write_checkpoint

ROOT = Path(__file__).parent.parent
BLOCK = re.compile(r"```(\w+)\n(.*?)```", re.DOTALL)
NAMES = {"self_attn.q_proj": "attn.wq", "self_attn.k_proj": "attn.wk", "self_attn.o_proj": "attn.wo"}
NAMES |= {"self_attn": "attn", "input_layernorm": "norm_1"}


def section(heading: str) -> str:
    text = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    return text.partition(f"## {heading}\n")[2].partition("\n## ")[0]


def apply(diff: str, root: Path) -> None:
    """Each hunk must fit in exactly one place."""
    for file, hunks in re.findall(r"^\+\+\+ b/(\S+)\n(.*?)(?=^--- |\Z)", diff, re.DOTALL | re.MULTILINE):
        path = root / file
        for hunk in re.split(r"^@@\n", hunks, flags=re.MULTILINE)[1:]:
            lines = hunk.splitlines(keepends=True)
            old = "".join(line[1:] for line in lines if line[0] in " -")
            new = "".join(line[1:] for line in lines if line[0] in " +")
            text = path.read_text("utf-8")
            assert text.count(old) == 1, (file, old)
            path.write_text(text.replace(old, new), "utf-8")


@pytest.fixture
def follow(tmp_path: Path):
    """follow(heading): applies the diffs and new files under it, then runs its commands; what they printed."""

    def follow(heading: str) -> str:
        copy = tmp_path / "copy"
        shutil.copytree(ROOT / "gatenorm_stream", copy / "gatenorm_stream")
        (tmp_path / "bin").mkdir()
        program = tmp_path / "bin" / "gatenorm-stream"
        program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m gatenorm_stream "$@"\n')
        program.chmod(0o755)
        environment = {**os.environ, "PYTHONPATH": str(copy), "PATH": f"{program.parent}:{os.environ['PATH']}"}
        text, printed = section(heading), ""
        (new_file,) = re.findall(r"`(gatenorm_stream/\S+\.py)`:\n\n```python", text) or [None]
        for language, code in BLOCK.findall(text):
            if language == "diff":
                apply(code, copy)
            elif language == "python":
                (copy / new_file).write_text(code, "utf-8")
            else:
                done = subprocess.run(
                    ["sh", "-ec", code], cwd=tmp_path, env=environment, capture_output=True, text=True
                )
                assert done.returncode == 0, (code, done.stderr)
                printed += done.stdout
        return printed

    return follow


@pytest.mark.slow
def test_add_a_family(follow, tmp_path: Path) -> None:
    tensors = random_tensors(llama_shapes())
    for old, new in NAMES.items():
        tensors = {name.replace(old, new): values for name, values in tensors.items()}
    config = llama_config(model_type="widget", architectures=["WidgetForCausalLM"])
    write_checkpoint(tmp_path / "WIDGET", tensors, config)
    assert "WidgetForCausalLM: 4 layers" in follow("Add a family")
    (gone,) = [t for n, t in read_tensors(tmp_path / "DIR").items() if "attn.wo" in n and not any(t[2])]
    assert gone[1] == (32, 32)


@pytest.mark.slow
def test_add_an_output_format(follow, llama: Path, tmp_path: Path) -> None:
    (tmp_path / "MODEL").symlink_to(llama)
    printed = follow("Add an output format")
    (zero,) = [n for n, t in read_tensors(tmp_path / "DIR").items() if "o_proj" in n and not any(t[2])]
    assert f"\n{zero}\n" in printed
    assert (tmp_path / "DIR" / "zeroed.txt").read_text() == zero + "\n"
