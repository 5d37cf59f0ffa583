"""What people see: screens as text in tests/golden/screens. UPDATE_GOLDEN=1 writes them anew."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from benchmarks.shapes import SHAPES, write_sparse
from tests.conftest import COMMAND, FIXTURE
from tests.terminal.terminal import Terminal

pytestmark = pytest.mark.slow

COMMANDS = ("", "prune", "score", "measure", "compare", "verify", "explain", "push", "families")
SCREENS = Path(__file__).parents[1] / "golden" / "screens"
BIN = str(Path(COMMAND).parent)
PATH = f"{BIN}:{os.environ['PATH']}"


def check(name: str, screen: str) -> None:
    screen = re.sub(r"in \d+\.\d s", "in 0.0 s", screen)
    if os.environ.get("UPDATE_GOLDEN"):
        SCREENS.mkdir(exist_ok=True)
        (SCREENS / f"{name}.txt").write_text(screen, encoding="utf-8")
    assert screen == (SCREENS / f"{name}.txt").read_text("utf-8")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "sotu-5m").symlink_to(FIXTURE)
    (tmp_path / "sotu-5m.txt").touch()
    return tmp_path


def screen(folder: Path, *args: str, columns: int = 80, **environment: Any) -> str:
    with Terminal([COMMAND, *args], folder, columns, PATH=PATH, **environment) as terminal:
        return terminal.until_end()


@pytest.mark.parametrize("columns", [80, 60, 40])
@pytest.mark.parametrize("command", COMMANDS)
def test_help(folder: Path, command: str, columns: int) -> None:
    check(f"help-{command or 'all'}-{columns}", screen(folder, *command.split(), "--help", columns=columns))


@pytest.mark.parametrize("columns", [80, 60, 40])
def test_score(folder: Path, columns: int) -> None:
    check(f"score-{columns}", screen(folder, "score", "sotu-5m", columns=columns))


@pytest.mark.parametrize("columns", [80, 60, 40])
def test_prune_and_verify(folder: Path, columns: int) -> None:
    """A newcomer's path: what would go, prune, verify, what was done, before and after, what is left."""
    check(f"plan-{columns}", screen(folder, "sotu-5m", columns=columns))
    check(f"prune-{columns}", screen(folder, "sotu-5m", "--out", "out", columns=columns))
    check(f"verify-{columns}", screen(folder, "verify", "out", "--against", "sotu-5m", columns=columns))
    check(f"explain-{columns}", screen(folder, "explain", "out", columns=columns))
    check(f"compare-{columns}", screen(folder, "compare", "sotu-5m", "out", columns=columns))
    check(f"score-output-{columns}", screen(folder, "score", "out", columns=columns))


@pytest.mark.parametrize("columns", [80, 60, 40])
def test_two_readings(folder: Path, columns: int) -> None:
    told = screen(folder, "compare", "sotu-5m", "--other-reading", "stored", columns=columns)
    check(f"compare-readings-{columns}", told)


@pytest.mark.parametrize("how", ["a path", "a module"])
def test_what_comes_next_runs_as_printed(folder: Path, how: str) -> None:
    """Where the command is not on the PATH."""
    start = [COMMAND] if how == "a path" else [sys.executable, "-m", "gatenorm_stream"]
    with Terminal([*start, "sotu-5m", "--out", "out"], folder, 200, PATH=os.defpath) as terminal:
        shown = terminal.until_end()
    (line,) = re.findall(r"^next: (.*)$", shown, re.MULTILINE)
    assert line.startswith(shlex.join(start))
    with Terminal(["bash", "-c", line], folder, 200, PATH=os.defpath) as terminal:
        assert terminal.until_end().startswith("verified out: ")


MISTAKES = """\
gatenorm-stream scroe sotu-5m
gatenorm-stream help
gatenorm-stream Score sotu-5m
gatenorm-stream score sotu-5m --dorp 2
gatenorm-stream score sotu-5m --out pruned
gatenorm-stream sotu-5m pruned
gatenorm-stream sotu-5m --dry-run --drop 20%
gatenorm-stream sotu-5m --dry-run --share 1/5
gatenorm-stream sotu-5m --dry-run --share 20%
gatenorm-stream sotu-5m --dry-run --engine vLLM
gatenorm-stream sotu-5m --dry-run --engine ollama
gatenorm-stream sotu-5m --dry-run --threads 0
gatenorm-stream compare sotu-5m
gatenorm-stream sotu-5m --dry-run --format noop
gatenorm-stream sotu-5m --dry-run --layers 3-x
gatenorm-stream explain nowhere
gatenorm-stream score sotu5m
gatenorm-stream score ./stu-5m
gatenorm-stream verify sotu-m5
gatenorm-stream sotu-5m --dry-run --drop 12
gatenorm-stream quantize sotu-5m
gatenorm-stream -v
"""


def test_mistakes(folder: Path) -> None:
    """Typed in a shell, one after another."""
    with _bash(folder) as terminal:
        for number, line in enumerate(MISTAKES.splitlines(), start=1):
            terminal.type(line + "\n")
            terminal.until(partial(_has_errors, number))
        check("mistakes", terminal.text)


def _has_errors(number: int, text: str) -> bool:
    return text.count("error:") == number and text.endswith("\n$\n")


def _is_completed(word: str, text: str) -> bool:
    return word in text and _at_prompt(text)


def test_completion_in_bash(folder: Path) -> None:
    """A screen for each line typed: Tab once where one word fits, twice to see them all."""
    screens = []
    with _bash(folder) as terminal:
        terminal.type('eval "$(gatenorm-stream --show-completion)"\n')
        terminal.until("\n$\n")
        for typed, completed in (
            ("gatenorm-stream ver\t", "verify"),
            ("gatenorm-stream \t\t", "families"),
            ("gatenorm-stream sotu-5m --dr\t\t", "--dry-run"),
            ("gatenorm-stream --prot\t\t\t", "--protect-last"),
            ("gatenorm-stream sot\t\t\t", "sotu-5m.txt"),
            ("gatenorm-stream sotu-5m --reading \t\t", "stored"),
            ("gatenorm-stream score sotu-5m --reading j\t", "joint"),
            ("gatenorm-stream verify sotu-5m --ag\t", "--against"),
        ):
            terminal.type("\x15clear\n")
            terminal.until(lambda text: text == "$\n")
            terminal.type(typed)
            screens.append(terminal.until(partial(_is_completed, completed)))
    check("completion-in-bash", "\n".join(screens))


@pytest.mark.parametrize(
    ("shell", "source"),
    [
        ("zsh", 'autoload -U compinit && compinit -u; eval "$(gatenorm-stream --show-completion)"'),
        ("fish", "gatenorm-stream --show-completion | source"),
    ],
)
def test_completion_elsewhere(folder: Path, shell: str, source: str) -> None:
    """Where the shell is installed."""
    if not shutil.which(shell):
        pytest.skip(f"no {shell} here")
    options = ["-f"] if shell == "zsh" else ["--no-config"]
    with Terminal([shell, *options], folder, 80, PATH=PATH, HOME=str(folder)) as terminal:
        terminal.type(source + "; echo re''ady\n")
        terminal.until("\nready")
        terminal.type("gatenorm-stream sotu-5m --protect-l\t 1 --dry-r\t --reading joi\t\n")
        terminal.until("dry run: nothing was written")
        assert "reading joint" in terminal.text


@pytest.mark.parametrize("columns", [80, 30])
def test_interrupted(folder: Path, columns: int) -> None:
    """The bar fits the line, and is gone after Ctrl-C."""
    write_sparse(SHAPES["13B"], folder / "large", rows=0.01)
    with _bash(folder, columns) as terminal:
        terminal.type("gatenorm-stream score large\n")
        terminal.until("scoring")
        _, *bar = terminal.until("%" if columns < 60 else "MB/s").splitlines()
        assert len(bar) == 1
        terminal.type("\x03")
        terminal.until("\n$\n")
        terminal.type("echo $?\n")
        check(f"interrupted-{columns}", terminal.until("130\n$\n"))


def test_no_color(folder: Path) -> None:
    for args in (["--help"], ["score", "sotu-5m"], ["sotu-5m", "--out", "out"]):
        with Terminal([COMMAND, *args], folder, 80, NO_COLOR="1") as terminal:
            terminal.until_end()
            assert not terminal.coloured
    with Terminal([COMMAND, "--help"], folder, 80) as terminal:
        terminal.until_end()
        assert terminal.coloured


def _at_prompt(text: str) -> bool:
    return text.splitlines()[-1].startswith("$ ")


def _bash(folder: Path, columns: int = 80) -> Terminal:
    shell = ["bash", "--norc", "--noprofile"]
    terminal = Terminal(shell, folder, columns, PATH=PATH, PS1="$ ", HF_HUB_OFFLINE="1")
    terminal.until(lambda text: text.strip() == "$")
    return terminal
