"""Models on the Hub that are run before they are pruned, or measured: every byte is fetched once."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

import gatenorm_stream
from gatenorm_stream.writing.destination import SPARE_BYTES
from tests.conftest import COMMAND
from tests.hub.hub_runs import FIXTURE, Run, contents, environment
from tests.hub.hub_server import Hub

WAYS = {
    "constants": ["--compensate"],
    "influence": ["--by", "influence", "--drop", "3"],
    "both, by rise": ["--by", "influence", "--compensate", "--max-rise", "0.5"],
}
WEIGHTS = sum(path.stat().st_size for path in FIXTURE.glob("*.safetensors"))
OTHERS = sum(path.stat().st_size for path in FIXTURE.iterdir() if path.suffix != ".safetensors")
FEW = ["--tokens", "16"]
PYTHON = str(Path(COMMAND).with_name("python"))

pytestmark = pytest.mark.slow


def fetched(hub: Hub) -> int:
    return sum(request.sent for request in hub.log if request.file)


@pytest.mark.parametrize("options", WAYS.values(), ids=WAYS.keys())
def test_the_output_is_that_of_the_directory(run: Run, hub: Hub, tmp_path: Path, options: list[str]) -> None:
    done = run("org/sotu", "--out", "out", *options, *FEW)
    assert done.returncode == 0, done.stderr
    assert WEIGHTS <= fetched(hub) <= 1.01 * WEIGHTS + OTHERS
    assert run(FIXTURE, "--out", "local", *options, *FEW).returncode == 0
    assert contents(tmp_path / "out") == contents(tmp_path / "local")
    records = (json.loads((tmp_path / out / "gatenorm.json").read_text()) for out in ("out", "local"))
    of_hub, of_directory = ({k: record.get(k) for k in ("measured", "constants", "dropped")} for record in records)
    assert of_hub == of_directory
    assert [p.name for p in tmp_path.glob("out*")] == ["out"]


@pytest.mark.parametrize("command", ["measure", "dry run"])
def test_nothing_is_fetched_twice_or_left_where_nothing_is_written(
    run: Run, hub: Hub, tmp_path: Path, command: str
) -> None:
    (tmp_path / "tmp").mkdir()
    words = ["--dry-run", *WAYS["both, by rise"]]
    compared = ("measured", "constants")
    if command == "measure":
        words, compared = ["--random", "1"], ("loss", "choices")
    begin = ["measure"] if command == "measure" else []
    done = run(*begin, "org/sotu", *words, "--json", *FEW, TMPDIR=str(tmp_path / "tmp"))
    assert done.returncode == 0, done.stderr
    assert fetched(hub) <= 1.01 * WEIGHTS + OTHERS
    assert not list((tmp_path / "tmp").iterdir())
    said = json.loads(done.stdout)
    expected = json.loads(run(*begin, FIXTURE, *words, "--json", *FEW).stdout)
    assert {name: said[name] for name in compared} == {name: expected[name] for name in compared}


def test_python_fetches_once_for_a_plan(hub: Hub, tmp_path: Path) -> None:
    script = (
        "import gatenorm_stream as g; print(g.plan('org/sotu', by='influence', drop=2, reading='joint', tokens=16)"
    )
    done = subprocess.run(
        [str(Path(COMMAND).with_name("python")), "-c", f"{script}.dropped)"],
        env=environment(hub, tmp_path),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{gatenorm_stream.plan(FIXTURE, by='influence', drop=2, tokens=16).dropped}\n"
    assert fetched(hub) <= 1.01 * WEIGHTS + OTHERS


def test_a_run_cut_off_while_it_measures_goes_on(hub: Hub, tmp_path: Path) -> None:
    """By Ctrl-C: one line, nothing at DIR; then the rest is fetched, and no byte twice."""
    command = [COMMAND, "org/sotu", "--out", "out", "--by", "influence", *FEW, "--connections", "2"]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    hub.rate = 2e6
    process = subprocess.Popen(command, cwd=tmp_path, env=environment(hub, tmp_path), **pipes)
    while hub.log.sent("storage") < WEIGHTS // 2:
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out) == (130, "")
    told, said = err.splitlines()
    assert told.startswith("to run org/sotu, 11 MB are fetched first, and stay in ")
    assert said == "interrupted; out is untouched, the same command resumes from out.partial"
    assert not (tmp_path / "out").exists()
    hub.rate = None
    begun = fetched(hub)
    assert subprocess.run(command, cwd=tmp_path, env=environment(hub, tmp_path), **pipes).returncode == 0
    under_way = 2 * (1 << 20)  # what was on its way at that moment
    assert fetched(hub) <= 1.01 * WEIGHTS + 2 * OTHERS + under_way
    assert fetched(hub) - begun < WEIGHTS * 0.7
    gatenorm_stream.verify(tmp_path / "out", against=FIXTURE)


@pytest.mark.parametrize(
    ("room", "words", "says"),
    [
        (1.9, ["org/sotu", "--out", "out", "--compensate"], "weights in the Hub cache and the output need 39 MB"),
        (2.1, ["org/sotu", "--out", "out", "--compensate"], ""),
        (0.9, ["measure", "org/sotu"], "free, and what is to come of org/sotu takes"),
        (1.1, ["measure", "org/sotu", "--random", "0"], ""),
    ],
)
def test_a_model_that_is_run_needs_room_for_its_weights(
    hub: Hub, tmp_path: Path, room: float, words: list[str], says: str
) -> None:
    """Told before they are fetched."""
    spare = 0 if "measure" in words else SPARE_BYTES
    script = f"""
import shutil
from collections import namedtuple
from gatenorm_stream.cli.main import main

shutil.disk_usage = lambda _: namedtuple("Usage", "total free")(1 << 40, {int(room * WEIGHTS) + spare})
main()
"""
    done = subprocess.run(
        [PYTHON, "-c", script, *words, *FEW],
        cwd=tmp_path,
        env=environment(hub, tmp_path),
        capture_output=True,
        text=True,
    )
    if not says:
        assert done.returncode == 0, done.stderr
        return
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert says in done.stderr
    assert hub.log.sent("storage") < 0.2 * WEIGHTS
