"""The same faults while a GGUF file is pruned into one file with a record beside it."""

from __future__ import annotations

import errno
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import gatenorm_stream
from tests.crash.crashing import STEP, Crashing, Mode, first, moments, said_so
from tests.gguf_files import shapes, tensors, write_gguf

WHOLE = ["out.gatenorm.json", "out.gatenorm.md", "out.gguf"]

LACKS: list[dict[str, Any]] = [{}, {"lack": ["exchange", errno.EINVAL]}, {"lack": ["renameat2", errno.ENOSYS]}]

pytestmark = pytest.mark.slow


@pytest.fixture
def gguf(tmp_path: Path, shim: Path) -> Iterator[Crashing]:
    made = Crashing(tmp_path, shim)
    made.against = write_gguf(made.source / "model.gguf", tensors(shapes(bias=True), "Q4_0"), "qwen2")
    made.model, made.out = str(made.against), made.target / "out.gguf"
    made.pristine[made.against] = made.against.read_bytes()
    yield made
    made.close()


def beside(gguf: Crashing) -> list[str]:
    return sorted(p.name for p in gguf.target.iterdir())


def test_killed_at_every_change(gguf: Crashing) -> None:
    whole = gguf.run()
    assert whole.code == 0, whole.stderr
    assert sorted(p.name for p in gguf.target.iterdir()) == WHOLE
    renamed = len(whole.changes) - whole.changes[::-1].index("rename")
    for nth in moments(len(whole.changes)):
        gguf.clean()
        assert gguf.run(mode=Mode.KILL, nth=nth).code == -signal.SIGKILL
        gguf.check(complete=nth > renamed)
        refused = gguf.run()  # or it finishes; once there is the file, an emptied .partial goes all the same
        assert (refused.code, "exists" in refused.stderr) == ((1, True) if nth > renamed else (0, False))
        gguf.finish()
        assert beside(gguf) == WHOLE


@pytest.mark.parametrize("error", first("ENOSPC", "EIO"))
def test_failing_at_every_change(gguf: Crashing, error: str) -> None:
    """Only the kernel's copying, and cleaning up once all is whole, may fail unnoticed."""
    unnoticed = set()
    for nth in moments(len(gguf.run().changes)):
        gguf.clean()
        failed = gguf.run(mode=Mode.FAIL, nth=nth, error=getattr(errno, error))
        if failed.code == 0:
            unnoticed.add(failed.changes[nth - 1])
            gguf.check(complete=True)
        else:
            said_so(failed)
        gguf.run()
        gguf.finish()
        assert beside(gguf) == WHOLE
    assert unnoticed <= {"copy_file_range", "unlinkat", "rmdir"}


@pytest.fixture
def earlier(gguf: Crashing) -> dict[str, bytes]:
    """Another output of the same source: its file, record and card."""
    file = gguf.folder / "out.gguf"
    gatenorm_stream.prune(gatenorm_stream.plan(gguf.against, layers=[3]), file)
    return {name: (gguf.folder / name).read_bytes() for name in WHOLE}


def put(gguf: Crashing, files: dict[str, bytes]) -> None:
    gguf.clean()
    for name, content in files.items():
        (gguf.target / name).write_bytes(content)


@pytest.mark.parametrize("lack", LACKS, ids=["renameat2", "no exchange", "without it"])
def test_replacing_an_earlier_output(gguf: Crashing, earlier: dict[str, bytes], lack: dict[str, Any]) -> None:
    """At every moment what is there verifies: the earlier output or the new one. Where names can't be exchanged,
    there is none at a moment.
    """
    put(gguf, earlier)
    changes = gguf.run("--force", **lack).changes
    assert changes.count("exchange") == (0 if lack else 3)
    begun = len(changes) - changes[::-1].index("mkdir")
    none, dropped = 0, set()
    for nth in sorted({*([] if lack else moments(len(changes))), *range(begun, len(changes) + 1)}):
        put(gguf, earlier)
        assert gguf.run("--force", mode=Mode.KILL, nth=nth, **lack).code == -signal.SIGKILL
        gguf.check(complete=None if lack else True)
        none += not gguf.out.exists()
        if gguf.out.exists():
            dropped.add(tuple(gatenorm_stream.verify(gguf.out).plan.dropped))
        again = gguf.run("--force", **lack)
        assert again.code == 0, (nth, again.stderr)
        gguf.check(complete=True)
        assert beside(gguf) == WHOLE
    assert dropped == {(3,), (1, 2)}
    assert bool(none) == bool(lack)


@pytest.mark.parametrize("without", [None, "out.gatenorm.md"])
def test_failing_while_it_replaces(gguf: Crashing, earlier: dict[str, bytes], without: str | None) -> None:
    """Whether the earlier file has a card or not."""
    files = {name: content for name, content in earlier.items() if name != without}
    put(gguf, files)
    changes = gguf.run("--force").changes
    failures = 0
    for nth in range(len(changes) - changes[::-1].index("mkdir"), len(changes) + 1):
        put(gguf, files)
        failed = gguf.run("--force", mode=Mode.FAIL, nth=nth, error=errno.EIO)
        if failed.code:
            said_so(failed)
            failures += 1
        if not without:
            gguf.check(complete=True)
        again = gguf.run("--force")
        assert again.code == 0, (nth, again.stderr)
        gguf.check(complete=True)
        left = [name for name in beside(gguf) if name not in WHOLE]
        assert all(f"{name} holds what was left" in failed.stderr and not failed.code for name in left), left
    assert failures > 5


@pytest.mark.parametrize("mode", [Mode.SHRINK, Mode.CHANGE, Mode.FAIL])
def test_at_every_read(gguf: Crashing, mode: Mode) -> None:
    """Where the kernel's copying fails, it is read and written instead."""
    whole, passed = gguf.run(), 0
    assert whole.reads > 100
    for nth in moments(whole.reads)[:: 3 if STEP == 1 else 1]:
        gguf.clean()
        ended = gguf.run(mode=mode, nth=nth, error=errno.EIO, reads=True)
        gguf.restore()
        if ended.code == 0 and mode is Mode.FAIL:
            passed += 1
            gguf.check(complete=True)
            continue
        said_so(ended)
        assert not gguf.out.exists()
        finished = gguf.run("--restart")
        assert finished.code == 0, finished.stderr
        gguf.check(complete=True)
    assert passed <= whole.changes.count("copy_file_range")
