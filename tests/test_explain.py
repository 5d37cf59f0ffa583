"""`explain`: what it tells is on record, and the commands it prints do what they say."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from gatenorm_stream.planning.plan import plan_from_json
from gatenorm_stream.writing.record import parse_record, render_record
from tests.conftest import FIXTURE, Run, golden


@pytest.fixture
def model(tmp_path: Path) -> str:
    """The fixture model under a short name, relative to where commands run."""
    (tmp_path / "model").symlink_to(FIXTURE)
    return "model"


def explained(run: Run, out: str) -> str:
    done = run("explain", out)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_the_default_choice(run: Run, model: str) -> None:
    run(model, "--out", "out")
    golden("explain.txt", explained(run, "out"))


@pytest.mark.slow
def test_in_ascii_in_60_columns(run: Run, model: str) -> None:
    run(model, "--out", "out")
    done = run("explain", "out", PYTHONUTF8="0", PYTHONIOENCODING="ascii", COLUMNS="60")
    assert done.stdout.isascii()
    assert max(map(len, done.stdout.split("\nCommands\n")[0].splitlines())) <= 60


ASKED = {
    "--layers 3,7-8": [
        "The layers were named (--layers 3,7-8), whatever their scores.",
        "ranks 3,5,9",
    ],
    "--drop 3": [
        "Asked for were 3 (--drop 3).",
        "ranks 1-3 of 12",
        "Next would have been layer 11",
    ],
    "--share 0.3": [
        "Asked for was a share of 0.3 of the sublayers, which is 3.",
    ],
    "--share 0.2 --protect-last 3": [
        "Protected (--protect-first 1, --protect-last 3) and kept in spite of a lower score: 9-11.",
        "ranks 3,5 of 12",
        "Next would have been layer 6",
    ],
    "--reading stored --protect-first 0": [
        "(reading stored)",
        "as they are stored",
    ],
    "--compensate --tokens 16": [
        "The mean of its output on the text takes the place",
        "Measured: loss",
        "16 tokens of the built-in text",
    ],
    "--by influence --drop 3 --text text.txt --tokens 16": [
        "Block influence is how far attention turns the stream",
        "16 tokens of text.txt that had no part",
    ],
    "--max-rise 0.9 --protect-last 2 --tokens 32 --format transformers": [
        "as many as a rise of 0.9 nats a token (--max-rise 0.9) allows, which is",
        "decided how many go, and nothing",
    ],
    "--reading joint --engine vllm --format zeroed --drop 2": [
        "zeroed in 2",
        "to run in vllm",
    ],
}
"""Options, and what `explain` then says."""


@pytest.mark.parametrize("options", ASKED)
def test_what_was_asked_for_and_the_commands_that_repeat_it(
    run: Run, model: str, tmp_path: Path, options: str
) -> None:
    (tmp_path / "text.txt").write_text("The state of the union is strong, and getting stronger. " * 20)
    done = run(model, "--out", "out", *options.split())
    assert done.returncode == 0, done.stderr
    told = explained(run, "out")
    for part in ASKED[options]:
        assert part in " ".join(told.split()), part
    commands = re.findall(r"^gatenorm-stream (.* --out AGAIN .*)$", told, re.MULTILINE)
    assert len(commands) == 2
    for n, command in enumerate(commands):
        done = run(*(f"again-{n}" if word == "AGAIN" else word for word in shlex.split(command)))
        assert done.returncode == 0, done.stderr
        first, again = (tmp_path / name / "gatenorm.json" for name in ("out", f"again-{n}"))
        if n == 0:
            assert again.read_bytes() == first.read_bytes()
        assert dropped(again) == dropped(first)
        assert digests(again) == digests(first)


def dropped(record: Path) -> list[int]:
    return json.loads(record.read_text())["dropped"]


def digests(record: Path) -> dict[str, str]:
    return {name: file["blake3"] for name, file in json.loads(record.read_text())["files"].items()}


def test_a_record_without_what_was_asked_for(run: Run, model: str, tmp_path: Path) -> None:
    run(model, "--out", "out")
    record = tmp_path / "out" / "gatenorm.json"
    content = json.loads(record.read_text())
    del content["choice"]
    plan, files = plan_from_json(content, "here"), parse_record(record.read_text(), "here")[1]
    record.write_text(render_record(plan, files))
    told = explained(run, "out")
    assert "What was asked for is not on record." in told
    assert "choose anew" not in told


@pytest.mark.slow
def test_a_record_that_was_changed(run: Run, model: str, tmp_path: Path) -> None:
    run(model, "--out", "out")
    record = tmp_path / "out" / "gatenorm.json"
    record.write_text(record.read_text().replace("per-head", "joint", 1))
    done = run("explain", "out")
    assert (done.returncode, done.stdout) == (1, "")
    assert "gatenorm.json was changed after it was written" in done.stderr


def test_what_is_no_output(run: Run, model: str) -> None:
    done = run("explain", model)
    assert done.returncode == 1
    assert "is not an output of gatenorm-stream: there is no gatenorm.json" in done.stderr


def test_the_record_in_place_of_the_output(run: Run, model: str) -> None:
    run(model, "-o", "out")
    assert run("explain", "out/gatenorm.json").stdout == run("explain", "out").stdout
    assert run("verify", "out/gatenorm.json").returncode == 0


@pytest.mark.parametrize("command", ["explain", "verify"])
def test_no_output_there(run: Run, model: str, command: str) -> None:
    done = run(command, "nowhere")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "error: nowhere is not there; give an output, a directory or a GGUF file\n"


def test_nothing_but_the_record_is_read(run: Run, model: str, tmp_path: Path) -> None:
    run(model, "--out", "out")
    told = explained(run, "out")
    for path in (tmp_path / "out").rglob("*"):
        if path.name != "gatenorm.json":
            path.unlink()
    assert explained(run, "out") == told
