"""What the whole process opens and changes, as the kernel sees it (an audit hook sees only Python's own calls)."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.checkpoints import llama_config, llama_shapes, random_tensors, write_checkpoint
from tests.conftest import COMMAND
from tests.gguf_files import shapes, tensors, write_gguf

CALLS = "open,openat,creat,rename,renameat,renameat2,unlink,unlinkat,mkdir,mkdirat,symlink,symlinkat,link,linkat"
CHANGES = re.compile(r"O_WRONLY|O_RDWR|O_CREAT|O_TRUNC|^\d+ +(creat|rename|unlink|mkdir|sym|link)")

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not shutil.which("strace"), reason="strace is not installed")]


@pytest.mark.parametrize("kind", ["safetensors", "gguf"])
def test_only_the_output_is_written_and_only_the_source_is_read(kind: str, tmp_path: Path) -> None:
    source, target, outside = (tmp_path / name for name in ("source", "target", "outside"))
    target.mkdir()
    outside.mkdir()
    if kind == "gguf":
        source.mkdir()
        model, out = write_gguf(source / "model.gguf", tensors(shapes(), "Q4_0")), target / "out.gguf"
        (source / "other.gguf").write_bytes(b"not asked for")
    else:
        model, out = write_checkpoint(source, random_tensors(llama_shapes()), llama_config()), target / "out"
    trace = tmp_path / "trace"
    run = [COMMAND, str(model), "--out", str(out), "--quiet"]
    command = ["strace", "-f", "-y", "-e", f"trace={CALLS}", "-o", str(trace), *run]
    subprocess.run(
        command, check=True, cwd=outside, env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}, timeout=120
    )
    calls = [line for line in trace.read_text().splitlines() if " = -1 " not in line]
    changed = [line for line in calls if CHANGES.search(line) and "/dev/null" not in line]
    assert len(changed) > 5
    inside = re.compile(rf'"{re.escape(str(target))}/|<{re.escape(str(target))}[/>]')  # by path, or by descriptor
    assert [line for line in changed if not inside.search(line) or "/.." in line or '"..' in line] == []
    read = {path for line in calls for path in re.findall(rf'"({re.escape(str(tmp_path))}/[^"]*)"', line)}
    assert {path for path in read if not path.startswith((f"{source}", f"{target}"))} == set()
    assert f"{source}/other.gguf" not in read
    assert not list(outside.iterdir())
