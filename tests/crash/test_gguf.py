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


@pytest.mark.parametrize("lack", [{}, {"lack": ["renameat2", errno.ENOSYS]}], ids=["renameat2", "without it"])
def test_replacing_an_earlier_output(gguf: Crashing, lack: dict[str, Any]) -> None:
    """File, record and card are together what verifies, or there is no file."""
    earlier = gguf.folder / "earlier.gguf"
    gatenorm_stream.prune(gatenorm_stream.plan(gguf.against, layers=[3]), earlier)
    before = earlier.read_bytes()

    def put_earlier() -> None:
        gguf.clean()
        gguf.out.write_bytes(before)
        for ending in (".gatenorm.json", ".gatenorm.md"):
            gguf.out.with_suffix(ending).write_bytes(earlier.with_suffix(ending).read_bytes())

    put_earlier()
    changes = gguf.run("--force", **lack).changes
    begun = len(changes) - changes[::-1].index("mkdir")
    for nth in sorted({*([] if lack else moments(len(changes))), *range(begun, len(changes) + 1)}):
        put_earlier()
        assert gguf.run("--force", mode=Mode.KILL, nth=nth, **lack).code == -signal.SIGKILL
        gguf.check()
        again = gguf.run("--force", **lack)
        assert again.code == 0, (nth, again.stderr)
        gguf.check(complete=True)
        assert beside(gguf) == WHOLE


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
