"""What README.md and docs/ say is run: commands, Python, and the output shown."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import FIXTURE, Run
from gguf_files import shapes, tensors, write_gguf

ROOT = Path(__file__).parent.parent
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(language: str, document: Path) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", document.read_text("utf-8"), re.DOTALL)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda d: d.name)
def test_every_command_runs(run: Run, tmp_path: Path, document: Path) -> None:
    """MODEL is the fixture; each --out is a new directory, and DIR elsewhere is the latest of them.

    The GGUF file that is named is there, if not of that type.

    Commands on the Hub are run in tests/hub.
    """
    lines = [line for block in blocks("sh", document) for line in block.splitlines() if "org/name" not in line]
    latest = tmp_path / "pruned"
    write_gguf(tmp_path / "model-Q4_K_M.gguf", tensors(shapes(), "Q4_0"))
    assert run(FIXTURE, "--out", latest).returncode == 0
    for number, line in enumerate(line for line in lines if line.startswith("gatenorm-stream ")):
        words = shlex.split(line, comments=True)[1:]
        replaced = {"MODEL": FIXTURE, "path/to/model": FIXTURE, "fixtures/sotu-5m": FIXTURE, "DIR": latest}
        args = [replaced.get(w, w.replace("DIR/", f"{latest}/")) for w in words]
        if "--out" in words and not words[words.index("--out") + 1].endswith(".gguf"):
            latest = args[args.index("--out") + 1] = tmp_path / f"out-{number}"
        done = run(*args)
        assert done.returncode == 0, (line, done.stderr)


def test_the_python_example(tmp_path: Path) -> None:
    (tmp_path / "fixtures").symlink_to(ROOT / "fixtures")
    (code,) = blocks("python", ROOT / "README.md")
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    assert (tmp_path / "pruned/gatenorm.json").is_file()


def test_the_output_shown_is_what_is_printed(run: Run) -> None:
    (shown,) = blocks("text", ROOT / "README.md")
    printed = run(FIXTURE, "--dry-run").stdout.splitlines()
    for line in shown.splitlines():
        assert line.strip() == "..." or line in printed


def test_every_make_target_named_exists() -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    for document in [*DOCUMENTS, ROOT / "CONTRIBUTING.md"]:
        for target in re.findall(r"\bmake ([a-z][a-z-]+)\b", document.read_text("utf-8")):
            if f"`make {target}`" in document.read_text("utf-8"):
                assert f"\n{target}:" in makefile, (document.name, target)


def test_links_lead_somewhere() -> None:
    for document in [*DOCUMENTS, ROOT / "CONTRIBUTING.md", ROOT / "fixtures/README.md"]:
        for link in re.findall(r"\]\((?!https?:)([^)#]+)", document.read_text("utf-8")):
            assert (document.parent / link).exists(), (document.name, link)
