"""A fault at every call that changes a file: the process is killed there, or the call fails."""

from __future__ import annotations

import errno
import os
import random
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import gatenorm_stream
from tests.crash.crashing import STEP, Crashing, Mode, first, moments, said_so

KINDS = {"open", "write", "copy_file_range", "fsync", "rename", "unlinkat", "mkdir"}
RANDOM_KILLS = int(os.environ.get("GATENORM_RANDOM_KILLS", 300 // STEP))

CAN_NOT_EXCHANGE = [{"lack": ["exchange", errno.EINVAL]}, {"lack": ["renameat2", errno.ENOSYS]}]
"""File systems that can't exchange two names, and kernels that know no renameat2 at all."""

pytestmark = pytest.mark.slow


def test_killed_at_every_change(crashing: Crashing) -> None:
    whole = crashing.run()
    assert whole.code == 0, whole.stderr
    crashing.check(complete=True)
    assert set(whole.changes) >= KINDS
    print(f"{len(whole.changes)} calls that change files")
    renamed = len(whole.changes) - whole.changes[::-1].index("rename")
    for nth in moments(len(whole.changes)):
        crashing.clean()
        killed = crashing.run(mode=Mode.KILL, nth=nth)
        assert killed.code == -signal.SIGKILL
        crashing.check(complete=nth > renamed)
        crashing.tidy()
        crashing.finish()
        assert [p.name for p in crashing.target.iterdir()] == ["out"]


@pytest.mark.parametrize("error", first("ENOSPC", "EIO", "EROFS", count=2))
def test_failing_at_every_change(crashing: Crashing, error: str) -> None:
    """Only the kernel's copying may fail unnoticed, and to clear away an empty directory (the next run does)."""
    calls, unnoticed = len(crashing.run().changes), set()
    for nth in moments(calls):
        crashing.clean()
        failed = crashing.run(mode=Mode.FAIL, nth=nth, error=getattr(errno, error))
        if failed.code == 0:
            unnoticed.add(failed.changes[nth - 1])
            crashing.check(complete=True)
        else:
            said_so(failed)
            crashing.check()
        crashing.tidy()
        crashing.finish()
        assert [p.name for p in crashing.target.iterdir()] == ["out"]
    assert unnoticed <= {"rmdir", "copy_file_range"}


@pytest.fixture
def earlier(crashing: Crashing) -> Path:
    gatenorm_stream.prune(gatenorm_stream.plan(crashing.source, layers=[3]), crashing.folder / "earlier")
    return crashing.folder / "earlier"


def publishing(changes: list[str]) -> range:
    """At which calls: from the making of DIR.replaced-* on, and a few before."""
    return range(len(changes) - changes[::-1].index("mkdir") - 5, len(changes) + 1)


@pytest.mark.parametrize("lack", [{}, *CAN_NOT_EXCHANGE], ids=["exchanged", "EINVAL", "ENOSYS"])
def test_replacing_an_earlier_output(crashing: Crashing, earlier: Path, lack: dict[str, Any]) -> None:
    """With --force: at every moment the earlier output or the new one, and never a part of either. Where names
    can't be exchanged, there is none at a moment. What was left is found by a run that is refused, too.
    """
    shutil.copytree(earlier, crashing.out)
    whole = crashing.run("--force", **lack)
    assert whole.code == 0, whole.stderr
    assert ("exchange" in whole.changes) == (not lack)
    none, dropped = 0, set()
    for nth in publishing(whole.changes):
        crashing.clean()
        shutil.copytree(earlier, crashing.out)
        assert crashing.run("--force", mode=Mode.KILL, nth=nth, **lack).code == -signal.SIGKILL
        crashing.check(complete=None if lack else True)
        none += not crashing.out.exists()
        if crashing.out.exists() and nth % 2:
            dropped.add(tuple(gatenorm_stream.verify(crashing.out).plan.dropped))
            crashing.tidy()
        again = crashing.run("--force", **lack)
        assert again.code == 0, (nth, again.stderr)
        crashing.check(complete=True)
        assert [p.name for p in crashing.target.iterdir()] == ["out"]
    assert dropped == {(3,), (1, 2)}
    assert bool(none) == bool(lack)


def test_failing_while_it_replaces(crashing: Crashing, earlier: Path) -> None:
    """A file of the earlier output that can't be deleted stays, and is named."""
    shutil.copytree(earlier, crashing.out)
    failures = 0
    for nth in publishing(crashing.run("--force").changes):
        crashing.clean()
        shutil.copytree(earlier, crashing.out)
        failed = crashing.run("--force", mode=Mode.FAIL, nth=nth, error=errno.EIO)
        if failed.code:
            said_so(failed)
            failures += 1
        crashing.check(complete=True)
        again = crashing.run("--force")
        assert again.code == 0, (nth, again.stderr)
        crashing.check(complete=True)
        left = [p.name for p in crashing.target.iterdir() if p.name != "out"]
        assert all(f"{name} holds what was left" in failed.stderr and not failed.code for name in left), left
    assert failures > 5


def test_killed_at_random_moments(crashing: Crashing) -> None:
    """Side by side threads, and a run that has been cut off may be cut off again."""
    rng = random.Random(0)
    seconds = min(crashing.run("--force", "--threads", "2").seconds for _ in range(3))
    kills = 0
    while kills < RANDOM_KILLS:
        crashing.clean()
        while not crashing.out.exists():
            ended = crashing.run(
                "--threads", "2", signal=signal.SIGKILL, signal_after=rng.uniform(0, 1.1 * seconds)
            )
            kills += ended.code == -signal.SIGKILL
            assert ended.code in (0, -signal.SIGKILL), ended.stderr
            crashing.check()
        crashing.finish()


@pytest.mark.parametrize("reads", [True, False], ids=["at every read", "at every change"])
@pytest.mark.parametrize(
    ("number", "code", "word", "step"),
    [(signal.SIGINT, 130, "interrupted", 1), (signal.SIGTERM, 143, "terminated", 3)],
    ids=["SIGINT", "SIGTERM"],
)
def test_interrupted(crashing: Crashing, number: int, code: int, word: str, step: int, reads: bool) -> None:
    """SIGTERM, which takes the same way from its handler on, at each third of them."""
    whole = crashing.run()
    for nth in moments(whole.reads if reads else len(whole.changes))[::step]:
        crashing.clean()
        ended = crashing.run(mode=Mode.SIGNAL, nth=nth, error=number, reads=reads)
        assert ended.code == code, (nth, ended)
        assert ended.stderr.startswith(word)
        assert ended.stderr.count("\n") == 1
        assert not crashing.out.with_name("out.partial").exists() or "the same command resumes" in ended.stderr
        crashing.check()
        crashing.finish()


def test_two_runs_side_by_side(crashing: Crashing) -> None:
    for _ in range(max(4, 20 // STEP)):
        crashing.clean()
        ended = crashing.run(side_by_side=2)
        assert 0 in ended.codes, ended.stderr
        assert set(ended.codes) <= {0, 1}
        assert "unexpected" not in ended.stderr
        crashing.check(complete=True)


@pytest.fixture
def small_disk(crashing: Crashing) -> Iterator[Crashing]:
    """The target on a file system of 24 MB of its own."""
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=24m", "none", crashing.target], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("no right to mount")
    yield crashing
    subprocess.run(["umount", "-l", crashing.target], check=True)


def test_a_full_disk(small_disk: Crashing) -> None:
    """The disk fills up before each call that changes a file; then someone makes room."""
    calls = len(small_disk.run().changes)
    small_disk.check(complete=True)
    full, tried = 0, moments(calls)
    for nth in tried:
        small_disk.clean()
        ended = small_disk.run(mode=Mode.FILL, nth=nth)
        if ended.code:
            said_so(ended)
            full += "the disk is full" in ended.stderr
        small_disk.check()
        (small_disk.target / "filler").unlink()
        small_disk.finish()
    assert full > len(tried) / 3


def test_another_file_system(small_disk: Crashing) -> None:
    assert os.stat(small_disk.target).st_dev != os.stat(small_disk.source).st_dev
    assert small_disk.run().code == 0
    small_disk.check(complete=True)


def test_a_killed_run_is_started_over(crashing: Crashing) -> None:
    """--restart discards what was left, wherever the run was."""
    changes = crashing.run().changes
    for nth in range(3, changes.index("rename") + 1, 7):
        crashing.clean()
        assert crashing.run(mode=Mode.KILL, nth=nth).code == -signal.SIGKILL
        partial = crashing.out.with_name("out.partial")
        (partial / ".gatenorm-spool").mkdir()
        (partial / ".gatenorm-spool" / "x").write_bytes(b"damaged")
        (partial / "sub").mkdir(exist_ok=True)
        (partial / "sub" / "stray").write_bytes(b"damaged")
        again = crashing.run("--restart")
        assert again.code == 0, again.stderr
        crashing.check(complete=True)
        assert not (crashing.out / "sub" / "stray").exists()
        shutil.rmtree(crashing.out)
