"""Runs that are cut off: DIR is absent or complete, the source is untouched, the next run finishes."""

from __future__ import annotations

import fcntl
import json
import os
import random
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

import gatenorm_stream
from gatenorm_stream.errors import CheckpointError, OutputError
from tests.checkpoints import encode, llama_config, llama_shapes, random_tensors, write_shard
from tests.conftest import COMMAND, Run


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """A tiny Llama with 72 MB of padding over 12 shards, so that writing takes long enough to be cut off."""
    root = tmp_path / "large"
    root.mkdir()
    stored = {n: ("BF16", t.shape, encode(t, "BF16")) for n, t in random_tensors(llama_shapes()).items()}
    names, weight_map = list(stored), dict[str, str]()
    padding = np.random.default_rng(0).bytes(6 << 20)
    for s in range(12):
        file = f"model-{s + 1:05d}-of-00012.safetensors"
        part = {n: stored[n] for n in names[s::12]} | {f"padding.{s}": ("U8", (len(padding),), padding)}
        write_shard(root / file, part)
        weight_map |= dict.fromkeys(part, file)
    (root / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    (root / "config.json").write_text(json.dumps(llama_config()))
    return root


def start(root: Path, out: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [COMMAND, str(root), "--out", str(out), "--layers", "1", "--threads", "2"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for_files(out: Path, count: int, process: subprocess.Popen[str]) -> None:
    """Until `count` more files are complete in the `.partial`, or the run ends."""
    journal = out.with_name(out.name + ".partial") / ".gatenorm-journal"

    def complete() -> int:
        try:
            return journal.read_bytes().count(b"\n")
        except FileNotFoundError:
            return 0

    begun_with, deadline = max(complete(), 1), time.monotonic() + 60
    while complete() < begun_with + count and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.001)


@pytest.mark.parametrize(
    ("number", "code", "word"),
    [
        (signal.SIGINT, 130, "interrupted"),
        pytest.param(signal.SIGTERM, 143, "terminated", marks=pytest.mark.slow),
    ],
)
def test_ctrl_c_and_sigterm(large: Path, tmp_path: Path, number: int, code: int, word: str) -> None:
    out = tmp_path / "out"
    process = start(large, out)
    wait_for_files(out, 1, process)
    process.send_signal(number)
    _, stderr = process.communicate(timeout=20)
    assert process.returncode == code
    assert stderr.startswith(word)
    assert "the same command resumes" in stderr
    assert stderr.count("\n") == 1
    assert not out.exists()
    again = start(large, out)
    again.communicate(timeout=60)
    assert again.returncode == 0
    gatenorm_stream.verify(out, against=large)


@pytest.mark.slow
def test_kill_at_random_moments(large: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    before = {p.name: (p.stat().st_size, p.stat().st_mtime_ns) for p in large.iterdir()}
    rng = random.Random(0)
    kills = 0
    while not out.exists():
        process = start(large, out)
        wait_for_files(out, rng.randint(1, 3), process)
        time.sleep(rng.uniform(0, 0.02))
        process.kill()
        process.communicate()
        kills += process.returncode == -signal.SIGKILL
    assert kills > 1
    start(large, out).communicate()  # settles what the last one left if it was killed while it published
    gatenorm_stream.verify(out, against=large)
    start(large, out).communicate()  # is refused, and clears away what a kill while the output got its name left
    assert {p.name: (p.stat().st_size, p.stat().st_mtime_ns) for p in large.iterdir()} == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["large", "out"]


@pytest.mark.slow
def test_finished_shards_are_not_written_again(large: Path, tmp_path: Path) -> None:
    out, partial = tmp_path / "out", tmp_path / "out.partial"
    process = start(large, out)
    wait_for_files(out, 1, process)
    process.kill()
    process.communicate()
    journal = [json.loads(line) for line in (partial / ".gatenorm-journal").read_text("utf-8").splitlines()[1:]]
    finished = {line["name"]: (partial / line["name"]).stat().st_ino for line in journal}
    times = {name: (partial / name).stat().st_mtime_ns for name in finished}
    again = start(large, out)
    again.communicate(timeout=60)
    assert {name: (out / name).stat().st_ino for name in finished} == finished
    assert {name: (out / name).stat().st_mtime_ns for name in finished} == times
    gatenorm_stream.verify(out, against=large)


def test_another_plan_asks_for_restart(run: Run, llama: Path, tmp_path: Path) -> None:
    partial = tmp_path / "out.partial"
    partial.mkdir()
    (partial / ".gatenorm-journal").write_text('{"identity": "another"}\n')
    (partial / "model.safetensors").write_bytes(b"half")
    refused = run(llama, "--out", "out")
    assert refused.returncode == 1
    assert "--restart" in refused.stderr
    assert (partial / "model.safetensors").read_bytes() == b"half"
    assert run(llama, "--out", "out", "--restart").returncode == 0
    gatenorm_stream.verify(tmp_path / "out", against=llama)


def test_a_partial_that_is_not_ours_is_left_alone(run: Run, llama: Path, tmp_path: Path) -> None:
    partial = tmp_path / "out.partial"
    partial.mkdir()
    (partial / "thesis.txt").write_text("mine")
    assert run(llama, "--out", "out").returncode == 1
    assert (partial / "thesis.txt").read_text() == "mine"


class CutError(Exception):
    pass


def cut_off(source: Path, out: Path) -> Path:
    """A run that ends when it has finished some files; its `.partial`."""
    seen: list[str] = []

    def stop(what: str, done: int, total: int, file: str) -> None:
        seen.append(file)
        if file.endswith("00002-of-00002.safetensors"):
            raise CutError

    with pytest.raises(CutError):
        gatenorm_stream.prune(gatenorm_stream.plan(source, layers=[1]), out, threads=1, progress=stop)
    return out.with_name(out.name + ".partial")


@pytest.mark.parametrize(
    "torn",
    ['{"name": "config.js', "3\n[]\nnull\n", '{"name": "../../x", "size": 0, "blake3": "", "marks": []}\n', "\xff"],
)
def test_a_torn_or_strange_journal_line_is_forgotten(llama: Path, tmp_path: Path, torn: str) -> None:
    partial = cut_off(llama, tmp_path / "out")
    first = partial / "model-00001-of-00002.safetensors"
    before = first.stat()
    with open(partial / ".gatenorm-journal", "ab") as journal:
        journal.write(torn.encode("latin-1"))
    gatenorm_stream.prune(gatenorm_stream.plan(llama, layers=[1]), tmp_path / "out")
    after = (tmp_path / "out" / first.name).stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    gatenorm_stream.verify(tmp_path / "out", against=llama)


@pytest.mark.parametrize("name", ["tokenizer.json", "model-00001-of-00002.safetensors"])
def test_a_source_that_changed_since_is_not_continued(llama: Path, tmp_path: Path, name: str) -> None:
    """Whichever file it is, what was finished of the old one would be wrong."""
    cut_off(llama, tmp_path / "out")
    os.utime(llama / name, (1e9, 1e9))
    plan = gatenorm_stream.plan(llama, layers=[1])
    with pytest.raises(OutputError, match="--restart"):
        gatenorm_stream.prune(plan, tmp_path / "out")
    gatenorm_stream.prune(plan, tmp_path / "out", restart=True)
    gatenorm_stream.verify(tmp_path / "out", against=llama)


def test_a_config_that_was_only_written_otherwise_is_continued(llama: Path, tmp_path: Path) -> None:
    """What counts is the config that the output gets, in which spaces of the source's are gone."""
    first = cut_off(llama, tmp_path / "out") / "model-00001-of-00002.safetensors"
    before = first.stat()
    (llama / "config.json").write_text((llama / "config.json").read_text() + " ")
    gatenorm_stream.prune(gatenorm_stream.plan(llama, layers=[1]), tmp_path / "out")
    after = (tmp_path / "out" / first.name).stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    gatenorm_stream.verify(tmp_path / "out", against=llama)


def test_a_partial_of_an_older_version(run: Run, llama: Path, tmp_path: Path) -> None:
    partial = cut_off(llama, tmp_path / "out")
    lines = (partial / ".gatenorm-journal").read_text().splitlines()
    identity = json.loads(lines[0])["identity"]
    (partial / ".gatenorm-journal").write_text("\n".join([json.dumps({"identity": identity}), *lines[1:]]) + "\n")
    refused = run(llama, "--out", "out", "--layers", "1")
    assert refused.returncode == 1
    assert "another plan, source or version" in refused.stderr
    assert run(llama, "--out", "out", "--layers", "1", "--restart").returncode == 0
    gatenorm_stream.verify(tmp_path / "out", against=llama)


def test_restart_discards_what_was_fetched_too(run: Run, llama: Path, tmp_path: Path) -> None:
    spool = tmp_path / "out.partial" / ".gatenorm-spool"
    spool.mkdir(parents=True)
    (spool / "0123").write_bytes(b"damaged")
    seen: list[bool] = []
    gatenorm_stream.prune(
        gatenorm_stream.plan(llama, layers=[1]),
        tmp_path / "out",
        restart=True,
        progress=lambda *_: seen.append(spool.exists()),
    )
    assert seen
    assert not any(seen)


def test_restart_deletes_only_what_is_ours(run: Run, llama: Path, tmp_path: Path) -> None:
    (tmp_path / "out.partial").mkdir()
    (tmp_path / "out.partial" / "thesis.txt").write_text("mine")
    refused = run(llama, "--out", "out", "--restart")
    assert refused.returncode == 1
    assert "was not left by gatenorm-stream" in refused.stderr
    assert (tmp_path / "out.partial" / "thesis.txt").read_text() == "mine"


def test_links_that_someone_put_there_are_not_followed(run: Run, llama: Path, tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "out.partial").symlink_to(tmp_path / "precious")
    refused = run(llama, "--out", "out", "--layers", "1")
    assert refused.returncode == 1
    assert "is not a directory" in refused.stderr
    (tmp_path / "out.partial").unlink()
    partial = cut_off(llama, tmp_path / "out")
    (tmp_path / "precious" / "file").write_text("mine")
    for path in partial.iterdir():
        if not path.name.startswith("."):
            path.unlink()
            path.symlink_to(tmp_path / "precious" / "file")
    refused = run(llama, "--out", "out", "--layers", "1")
    assert refused.returncode == 1
    assert "is a link" in refused.stderr
    assert (tmp_path / "precious" / "file").read_text() == "mine"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_a_partial_of_another_user_is_not_continued(run: Run, llama: Path, tmp_path: Path) -> None:
    os.chown(cut_off(llama, tmp_path / "out"), 12345, -1)
    refused = run(llama, "--out", "out", "--layers", "1")
    assert refused.returncode == 1
    assert "belongs to another user" in refused.stderr


def test_out_below_a_link(run: Run, llama: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    assert run(llama, "--out", "link/out").returncode == 0
    gatenorm_stream.verify(tmp_path / "elsewhere" / "out", against=llama)
    (tmp_path / "circle").symlink_to("circle")
    refused = run(llama, "--out", "circle/out")
    assert refused.returncode == 1
    assert "circle/out leads through links in a circle; choose another place" in refused.stderr


def test_two_runs_on_one_directory(run: Run, llama: Path, tmp_path: Path) -> None:
    (tmp_path / "out.partial").mkdir()
    handle = os.open(tmp_path / "out.partial", os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    try:
        refused = run(llama, "--out", "out")
    finally:
        os.close(handle)
    assert refused.returncode == 1
    assert "another run is writing" in refused.stderr
    assert run(llama, "--out", "out").returncode == 0


@pytest.mark.parametrize(
    "name", ["model-00001-of-00002.safetensors", "config.json", "model.safetensors.index.json"]
)
def test_a_source_that_changes_while_it_is_read(name: str, llama: Path, tmp_path: Path) -> None:
    plan = gatenorm_stream.plan(llama, layers=[1])

    def touch(what: str, done: int, total: int, file: str) -> None:
        os.utime(llama / name)

    with pytest.raises(CheckpointError, match="changed while it was read"):
        gatenorm_stream.prune(plan, tmp_path / "out", progress=touch)
    assert not (tmp_path / "out").exists()


def test_a_full_disk_says_how_to_go_on(llama: Path, tmp_path: Path) -> None:
    """The file-size limit of a process stands for a full disk: the write fails in the same place."""
    script = "import resource, signal, sys; from gatenorm_stream.cli.main import main\n"
    script += "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
    script += "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096)); main()"
    python = str(Path(COMMAND).with_name("python"))
    command = [python, "-c", script, str(llama), "--out", str(tmp_path / "out")]
    uncounted = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    done = subprocess.run(command, env=uncounted, capture_output=True, text=True)
    assert done.returncode == 1
    *earlier, said = done.stderr.splitlines()
    assert all(line.startswith("scoring: ") for line in earlier)  # on a slow machine
    assert "run the same command again" in said
    assert not (tmp_path / "out").exists()
    plan = gatenorm_stream.plan(llama)
    with pytest.raises(OutputError):
        gatenorm_stream.prune(plan, llama / "inside")
