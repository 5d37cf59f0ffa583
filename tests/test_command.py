"""The command as people meet it: tables, JSON, pipes, narrow and plain terminals."""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import gatenorm_stream
from gatenorm_stream.cli import compare, explain, families, main, measure, prune, push, score, verify
from gatenorm_stream.report import progress
from tests.checkpoints import HEADS, LAYERS, llama_config, llama_shapes, random_tensors, write_checkpoint
from tests.conftest import COMMAND, FIXTURE, Run, golden


@pytest.fixture
def stepped(tmp_path: Path) -> Path:
    """A Llama whose scores are known: layer n scores n + 1 times the first."""
    tensors = random_tensors(llama_shapes())
    for n in range(LAYERS):
        for p in "qk":
            name = f"model.layers.{n}.self_attn.{p}_proj.weight"
            tensors[name] = random_tensors({name: tensors[name].shape}, seed=ord(p))[name]
        tensors[f"model.layers.{n}.self_attn.q_proj.weight"] *= [2.0, 4.0, 1.0, 0.5][n]
    return write_checkpoint(tmp_path / "stepped", tensors, llama_config(), dtype="F32")


def test_score_table(run: Run, stepped: Path) -> None:
    golden("score.txt", run("score", "stepped", "--drop", "2").stdout)


def test_score_table_in_ascii(run: Run, stepped: Path) -> None:
    done = run("score", "stepped", PYTHONUTF8="0", PYTHONIOENCODING="ascii", COLUMNS="60")
    golden("score-ascii-60.txt", done.stdout)


@pytest.mark.parametrize("columns", [32, 33, 46, 80, 200])
def test_the_table_fits(run: Run, stepped: Path, columns: int) -> None:
    told = run("score", "stepped", COLUMNS=str(columns)).stdout
    assert max(map(len, told.splitlines())) <= min(columns, 100)
    lines = told.split("\n\n")[1].splitlines()
    assert [line.split()[1] for line in lines[1:]] == ["3", "2", "0", "1"]


def test_score_json(run: Run, stepped: Path) -> None:
    done = run("score", "stepped", "--json", "--drop", "2")
    report = json.loads(done.stdout)
    assert list(report) == ["model", "revision", "reading", "family", "layers", "dropped"]
    assert (report["model"], report["revision"], report["reading"]) == ("stepped", None, "per-head")
    assert (report["family"], report["dropped"]) == ("llama", [2, 3])
    assert [list(layer) for layer in report["layers"]] == [["layer", "score", "heads"]] * LAYERS
    assert all(len(layer["heads"]) == HEADS for layer in report["layers"])
    scores = [layer["score"] for layer in report["layers"]]
    assert [s / scores[2] for s in scores] == pytest.approx([2, 4, 1, 0.5], rel=1e-6)


def test_joint_has_no_heads(run: Run, stepped: Path) -> None:
    report = json.loads(run("score", "stepped", "--json", "--reading", "joint").stdout)
    assert [layer["heads"] for layer in report["layers"]] == [[]] * LAYERS


def test_dry_run(run: Run, stepped: Path) -> None:
    golden("dry-run.txt", run("stepped", "--dry-run", "--drop", "2", "--protect-last", "1").stdout)


def test_layer_0_is_kept_with_its_reason(run: Run, tmp_path: Path) -> None:
    tensors = random_tensors(llama_shapes())
    tensors["model.layers.0.self_attn.q_proj.weight"] *= 0.01
    write_checkpoint(tmp_path / "m", tensors, llama_config())
    note = "layer 0 scores low but stays: llama.cpp and vLLM can't run without it"
    assert note in run("score", "m").stdout
    assert note in run("m", "--dry-run").stdout
    assert note not in run("m", "--dry-run", "--protect-first", "1").stdout
    assert note not in run("m", "--dry-run", "--protect-first", "0", "--engine", "mlx-lm").stdout


def test_quiet_prints_nothing(run: Run, llama: Path) -> None:
    for args in (("score", llama), (llama, "--out", "out"), ("verify", "out")):
        done = run(*args, "--quiet")
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_nothing_but_results_on_stdout_in_a_pipe(run: Run, llama: Path) -> None:
    done = run(llama, "--out", "out", "--json")
    assert json.loads(done.stdout)["dropped"]
    assert done.stderr == ""


def test_help_and_version_name_the_commands(run: Run) -> None:
    for args in ((), ("--help",), ("-h",)):
        shown = run(*args).stdout
        assert "score" in shown
        assert "verify" in shown
    assert run("--version").stdout.startswith("gatenorm-stream 0.")
    assert "--protect-first" in run("prune", "--help").stdout


def test_options_may_stand_before_the_model(run: Run, llama: Path) -> None:
    assert run("--dry-run", llama).returncode == 0


@pytest.mark.parametrize("arguments", [["score", FIXTURE], ["score", "nowhere"], ["--nonsense"]])
def test_a_run_that_was_started_before_is_like_one_from_nothing(
    run: Run, tmp_path: Path, arguments: list[str]
) -> None:
    ours = run(*arguments)
    variables = {**os.environ, "COLUMNS": "80"}
    done = subprocess.run(ours.args, cwd=tmp_path, env=variables, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (ours.returncode, ours.stdout, ours.stderr)


def test_a_closed_pipe_is_no_error(llama: Path) -> None:
    shell = f"{COMMAND} score {llama} --json | head -c 5"
    done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True)
    assert done.stdout == '{\n "m'
    assert done.stderr == ""


@pytest.mark.slow
def test_closed_streams(llama: Path, tmp_path: Path) -> None:
    """They lead nowhere, and no file takes their place."""
    for line in ("--help", "families", f"score {llama}", f"{llama} --out out"):
        subprocess.run(["sh", "-c", f"{COMMAND} {line} <&- >&- 2>&-"], cwd=tmp_path, check=True)
    subprocess.run([COMMAND, "verify", "out", "--against", llama], cwd=tmp_path, check=True, capture_output=True)


@pytest.mark.parametrize("line", [f"score {FIXTURE} --json", "--help", "--version", "families", f"score {FIXTURE}"])
def test_a_full_disk_behind_standard_output(line: str) -> None:
    for unbuffered in ("", "1"):
        environment = os.environ | {"PYTHONUNBUFFERED": unbuffered}
        words = ["sh", "-c", f"{COMMAND} {line} >/dev/full"]
        done = subprocess.run(words, capture_output=True, text=True, env=environment)
        assert done.returncode == 1
        assert re.fullmatch(r"error: .*No space left on device\n", done.stderr)


def test_progress_on_a_terminal_only(llama: Path, tmp_path: Path) -> None:
    primary, secondary = pty.openpty()
    done = subprocess.run(
        [COMMAND, str(llama), "--out", str(tmp_path / "out")],
        stdout=subprocess.PIPE,
        stderr=secondary,
        env={**os.environ, "TERM": "xterm"},
        text=True,
    )
    os.close(secondary)
    shown = os.read(primary, 65536).decode()
    os.close(primary)
    assert done.returncode == 0
    assert "writing" in shown
    assert "\x1b" not in done.stdout


def test_debug_shows_the_traceback(run: Run) -> None:
    assert "Traceback" in run("score", "nowhere", "--debug").stderr


def test_names_that_try_to_move_the_cursor(run: Run, llama: Path) -> None:
    """What a stranger's config says is printed without its control characters."""
    config = json.loads((llama / "config.json").read_text()) | {"hidden_act": "\x1b[2Jgone\n"}
    (llama / "config.json").write_text(json.dumps(config))
    done = run(llama, "--out", "out")
    assert "\x1b" not in done.stdout + done.stderr


def test_what_needs_no_numbers_loads_nothing_heavy(tmp_path: Path) -> None:
    """A process each, since modules stay."""
    record = tmp_path / "pruned"
    gatenorm_stream.prune(gatenorm_stream.plan(FIXTURE, drop=1), record)
    heavy = ("numpy", "huggingface_hub", "rich", "safetensors", "tokenizers", "gguf")
    for words in (["--help"], ["--version"], ["families"], ["explain", str(record)]):
        script = f"""
import sys
from gatenorm_stream.cli.main import main
sys.argv = ["gatenorm-stream", *{words}]
try:
    main()
finally:
    print([m for m in {heavy} if m in sys.modules])
"""
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
        assert done.stdout.endswith("\n[]\n"), (words, done.stdout[-200:], done.stderr)


@pytest.mark.slow
def test_examples_in_help_run(tmp_path: Path) -> None:
    """As they stand there, but for the names: MODEL, A, B, DIR. Those on the Hub are run in tests/hub."""
    for name in ("MODEL", "A", "B"):
        (tmp_path / name).symlink_to(FIXTURE)
    (tmp_path / "notes.txt").write_text("The state of the union is strong, and getting stronger. " * 99)
    seen: set[str] = set()
    environment = {**os.environ, "PATH": f"{Path(COMMAND).parent}:{os.environ['PATH']}"}
    commands = (prune, score, measure, compare, verify, explain, push, families)
    for command, examples in ((None, main.EXAMPLES), *((c, c.EXAMPLES) for c in commands)):
        for line in examples.strip().splitlines():
            line = line.partition("  #")[0].strip()
            if "org/name" not in line and line not in seen:
                seen.add(line)
                line = line.replace("7,9-10", "1-2").replace("--drop 8", "--drop 2")
                if re.search(r"measure|--by|--compensate", line):
                    line += " --tokens 16"
                if " --out DIR" in line:
                    shutil.rmtree(tmp_path / "DIR", ignore_errors=True)
                done = subprocess.run(
                    ["sh", "-c", line], cwd=tmp_path, env=environment, capture_output=True, text=True
                )
                assert (done.returncode, done.stderr) == (0, ""), (command, line)


def test_every_option_says_what_it_takes(run: Run) -> None:
    """In words of ours, not in the names of Python's types."""
    for command in ("prune", "score", "measure", "compare", "verify", "explain", "push", "families"):
        for line in run(command, "--help").stdout.splitlines():
            if match := re.match(r"  (-[hoq], )?(--[][a-z-]+)( [A-Z]+)?(  +\S.*)?$", line):
                assert match[4] or len(line) < 30, line
            else:
                assert not line.startswith("  -"), line


def test_progress_and_notes_are_for_people_who_asked(capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    monkeypatch.setattr(progress, "LINE_SECONDS", 0)
    for quiet in (True, False):
        with progress.progress_meter(quiet) as meter:
            meter.report("scoring", 1, 2, "model.safetensors")
            meter.note("trying again")
        shown = capsys.readouterr()
        assert shown.out == ""
        assert shown.err == ("" if quiet else "scoring: 1 B of 2 B (50 %), model.safetensors\ntrying again\n")


@pytest.mark.parametrize(
    "beside",
    [
        ("--format", "zeroed"),
        ("--reading", "joint"),
        ("--engine", "vllm"),
        ("--protect-first", "2"),
        ("--drop", "1"),
    ],
    ids=lambda given: given[0],
)
def test_a_saved_plan_stands_alone(run: Run, llama: Path, tmp_path: Path, beside: tuple[str, str]) -> None:
    (tmp_path / "plan.json").write_text(run(llama, "--dry-run", "--json").stdout)
    done = run(llama, "--dry-run", "--plan", "plan.json", *beside)
    assert done.returncode == 2
    assert "--plan" in done.stderr
    assert beside[0] in done.stderr
    assert run(llama, "--dry-run", "--plan", "plan.json").returncode == 0


def test_what_a_saved_plan_was_asked_is_not_asked_again(run: Run, tmp_path: Path) -> None:
    """Layer 0 has the lowest score. A plan that names layer 2 itself did not protect it."""
    tensors = random_tensors(llama_shapes())
    tensors["model.layers.0.self_attn.q_proj.weight"] *= 0.01
    write_checkpoint(tmp_path / "m", tensors, llama_config())
    note = "layer 0 scores low but stays"
    (tmp_path / "named.json").write_text(run("m", "--dry-run", "--json", "--layers", "2").stdout)
    (tmp_path / "scored.json").write_text(run("m", "--dry-run", "--json").stdout)
    assert note not in run("m", "--dry-run", "--plan", "named.json").stdout
    assert note in run("m", "--dry-run", "--plan", "scored.json").stdout
