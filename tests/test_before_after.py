"""`compare` of a model and its output, and `score` of what is left."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.conftest import FIXTURE, Run


def table(text: str) -> dict[str, list[str]]:
    rows = (line.rsplit("  ", 3) for line in text.splitlines())
    return {row[0].strip(): [cell.strip() for cell in row[1:]] for row in rows if len(row) == 4}


@pytest.mark.parametrize("swapped", [False, True])
def test_sizes_are_those_of_the_plan(run: Run, swapped: bool) -> None:
    planned = run(FIXTURE, "--out", "out", "--drop", "3").stdout
    pair = ("out", FIXTURE) if swapped else (FIXTURE, "out")
    shown = run("compare", *pair)
    assert (shown.returncode, shown.stderr) == (0, "")
    rows = [
        line for line in planned.splitlines() if line.startswith(("attention sub", "parameters", "weights", "KV"))
    ]
    assert len(rows) == 4
    assert all(row in shown.stdout.splitlines() for row in rows)
    assert "attention is gone from 3 of 12 layers: 8-10" in shown.stdout
    assert shown.stdout.endswith(f"loss not measured: gatenorm-stream measure out --against {FIXTURE}\n")


@pytest.mark.slow
def test_the_loss_that_was_measured(run: Run) -> None:
    planned = run(FIXTURE, "--out", "out", "--compensate", "--tokens", "32").stdout
    found = json.loads(run("compare", FIXTURE, "out", "--json").stdout)
    assert found["gone"] == [9]
    loss = found["loss"]
    assert loss["rise"] == pytest.approx(loss["after"] - loss["before"])
    last = planned.splitlines()[-1]
    assert last.startswith(f"measured loss: {loss['before']:.3f} before, {loss['after']:.3f} after")
    shown = run("compare", FIXTURE, "out").stdout
    assert f"{loss['before']:.3f}" in shown
    assert "not measured" not in shown


@pytest.mark.slow
def test_zeroed_keeps_every_shape(run: Run) -> None:
    run(FIXTURE, "--out", "out", "--format", "zeroed", "--quiet")
    shown = run("compare", FIXTURE, "out").stdout
    assert "attention is zeroed in 1 layers, where every shape is kept: 9" in shown
    found = json.loads(run("compare", FIXTURE, "out", "--json").stdout)
    assert (found["gone"], found["zeroed"]) == ([], [9])
    assert found["before"]["parameters"] == found["after"]["parameters"]


def test_of_something_else(run: Run, llama: Path) -> None:
    run(FIXTURE, "--out", "out", "--quiet")
    for pair in ((llama, "out"), ("out", "out")):
        done = run("compare", *pair)
        assert (done.returncode, done.stdout) == (1, "")
        assert "its source" in done.stderr or "its own source" in done.stderr


def test_score_of_what_is_left(run: Run) -> None:
    run(FIXTURE, "--out", "out", "--layers", "2,9", "--quiet")
    whole = json.loads(run("score", FIXTURE, "--json").stdout)
    left = json.loads(run("score", "out", "--json").stdout)
    assert left["layers"] == [s for s in whole["layers"] if s["layer"] not in (2, 9)]
    assert left["dropped"] == []
    assert "layers without attention: 2,9; with it: 0-1,3-8,10-11" in run("score", "out").stdout
    done = run("score", "out", "--drop", "2")
    assert (done.returncode, "nothing goes from it" in done.stderr) == (2, True)
