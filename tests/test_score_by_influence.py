"""`score --by influence`: the ranking by one run of the model, as table, JSON and picture, and from Python."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import gatenorm_stream
from gatenorm_stream.errors import GateNormError
from tests.conftest import FIXTURE, Run

FEW = ["--by", "influence", "--tokens", "16"]


def test_it_is_what_measure_and_prune_find(run: Run) -> None:
    said = json.loads(run("score", FIXTURE, *FEW, "--drop", "3", "--json").stdout)
    planned = json.loads(run(FIXTURE, "--dry-run", *FEW, "--drop", "3", "--json").stdout)
    measured = json.loads(run("measure", FIXTURE, "--tokens", "16", "--random", "0", "--json").stdout)
    assert (said["by"], said["tokens"], said["text"]) == ("influence", 16, measured["text"])
    assert "reading" not in said
    assert said["dropped"] == planned["dropped"]
    assert [m["layer"] for m in said["layers"]] == list(range(12))
    for mine, beside in zip(said["layers"], measured["layers"], strict=True):
        assert mine == pytest.approx({k: v for k, v in beside.items() if k != "score"}, rel=1e-5)
    scores = gatenorm_stream.score(FIXTURE, by="influence", tokens=16)
    assert [s.score for s in scores] == pytest.approx([m["influence"] for m in said["layers"]], rel=1e-5)
    assert all(s.heads == () for s in scores)


def test_the_table_is_ranked_by_it(run: Run, tmp_path: Path) -> None:
    done = run("score", FIXTURE, *FEW, "--drop", "2", "--plot", "influence.svg")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert "block influence, measured on 16 tokens of the built-in text; the lowest would go first" in lines
    place = next(n for n, line in enumerate(lines) if line.split()[:3] == ["rank", "layer", "influence"])
    table = [line.split() for line in lines[place + 1 : place + 13]]
    shown = [float(cells[2]) for cells in table]
    assert shown == sorted(shown)
    marked = [int(cells[1]) for cells in table if cells[-1] == "drop"]
    assert len(marked) == 2
    assert set(marked) <= {int(cells[1]) for cells in table[:3]}
    assert "Block influence of" in (tmp_path / "influence.svg").read_text()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--by", "influence", "--reading", "joint"], "--reading is Gate-Norm's"),
        (["--by", "influence", "--dask", "tcp://127.0.0.1:1"], "--dask scores weights"),
        (["--tokens", "64"], "--text and --tokens are for --by influence"),
        (["--by", "chance"], "--by knows no chance; give one of gate-norm, influence"),
    ],
)
def test_what_contradicts_itself(run: Run, words: list[str], says: str) -> None:
    done = run("score", FIXTURE, *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert says in done.stderr


def test_a_criterion_that_there_is_not() -> None:
    with pytest.raises(GateNormError, match="nothing chooses by chance"):
        gatenorm_stream.score(FIXTURE, by="chance")  # type: ignore[arg-type]
