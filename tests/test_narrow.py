"""Without a terminal, COLUMNS is the width that somebody asked for; without it, a sentence is one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import FIXTURE, Run

WITHOUT_OUTPUT = (
    ["sotu-5m"],
    ["sotu-5m", "--out", "again"],
    ["score", "sotu-5m"],
    ["compare", "sotu-5m", "--other-reading", "stored"],
    ["measure", "sotu-5m", "--tokens", "16", "--random", "1"],
    ["families"],
)
OF_OUTPUT = (
    ["score", "out"],
    ["explain", "out"],
    ["compare", "sotu-5m", "out"],
    ["verify", "out", "--against", "sotu-5m"],
    ["measure", "out", "--against", "sotu-5m", "--tokens", "16"],
)


def prose(text: str) -> list[str]:
    """Its lines, but for commands, which are copied as one line."""
    return [line for line in text.splitlines() if not line.lstrip().startswith("gatenorm-stream ")]


@pytest.mark.slow
@pytest.mark.parametrize("columns", [40, 60, 80])
def test_every_line_fits(run: Run, tmp_path: Path, columns: int) -> None:
    (tmp_path / "sotu-5m").symlink_to(FIXTURE)
    run("sotu-5m", "--out", "out", "--quiet")
    for words in (*WITHOUT_OUTPUT, *OF_OUTPUT):
        told = run(*words, COLUMNS=str(columns)).stdout
        assert told, words
        assert max(map(len, prose(told))) <= columns, words


@pytest.mark.parametrize("asked", [{}, {"COLUMNS": ""}, {"COLUMNS": "wide"}, {"COLUMNS": "0"}])
def test_a_sentence_is_a_line_where_nobody_asked(run: Run, tmp_path: Path, asked: dict[str, str]) -> None:
    (tmp_path / "sotu-5m").symlink_to(FIXTURE)
    lines = run("sotu-5m", **asked).stdout.splitlines()
    assert [line for line in lines if line.startswith("llama.cpp cuts")] == [
        "llama.cpp cuts text into other tokens (its converter loses the merge order): the output's card has the fix"
    ]


def test_an_error_is_a_line_all_the_same(run: Run) -> None:
    done = run("score", "nowhere", COLUMNS="20")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert len(done.stderr) > 20


def test_a_command_is_a_line_all_the_same(run: Run, tmp_path: Path) -> None:
    (tmp_path / "sotu-5m").symlink_to(FIXTURE)
    told = run("sotu-5m", "--out", "out", COLUMNS="30").stdout.splitlines()
    at = told.index("next:")
    assert told[at + 1].endswith("verify out --against sotu-5m")
