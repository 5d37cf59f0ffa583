"""File systems that leave calls out: a run does without them, or one line says what is missing, and where.

Each call fails every time, with each of the errors that such file systems give, or does nothing and returns 0.
"""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path

import pytest

from tests.crash.crashing import Crashing, Mode, said_so

ERRORS = {name: getattr(errno, name) for name in ("EIO", "EINVAL", "EOPNOTSUPP", "ENOSYS", "EPERM", "ENOLCK")}
ERRORS["0"] = 0
DISPENSABLE = {
    "flock": "another lock",
    "fsync of a directory": "names may be lost with the power, which is said",
    "fsync": "the same of files",
    "fdatasync": "the same",
    "copy_file_range": "bytes are read and written",
    "posix_fadvise64": "nothing is read ahead",
    "preadv64v2": "pread",
    "statvfs64": "room is not checked",
    "ioctl": "blocks are not shared",
    "O_TMPFILE": "whether blocks would be shared is not known",
    "ftruncate64": "files are not cut before they are written over",
}
"""What a run does without, and how."""
ESSENTIAL = ("write", "pread64", "rename", "mkdir")
FAILING_SYNC = {("fsync", "EIO"), ("fsync of a directory", "EIO")}
"""Data may be lost: no file system lacks a call by this error."""

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("call", DISPENSABLE)
def test_what_a_run_does_without(crashing: Crashing, call: str) -> None:
    for name, error in ERRORS.items():
        crashing.clean()
        ended = crashing.run(lack=[call, error])
        if (call, name) in FAILING_SYNC:
            said_so(ended)
            assert "syncing" in ended.stderr
            assert str(crashing.source) not in ended.stderr
            crashing.check(complete=False)
            continue
        assert ended.code == 0, (name, ended.stderr)
        lost = error and call.startswith("fsync")
        assert ("does not sync" in ended.stderr) == bool(lost), (name, ended.stderr)
        crashing.check(complete=True)
        assert [p.name for p in crashing.target.iterdir()] == ["out"], name


@pytest.mark.parametrize("call", ESSENTIAL)
def test_what_it_can_not_do_without_is_one_line(crashing: Crashing, call: str) -> None:
    """The source is not blamed, unless reading it is what fails."""
    for name, error in ERRORS.items():
        if name == "0" and call in ("write", "rename"):
            continue  # Python itself writes again for ever; who renames nothing, yet says so, is not found out
        crashing.clean()
        ended = crashing.run(lack=[call, error])
        said_so(ended)
        assert "restore" not in ended.stderr or (call, name) == ("pread64", "EIO"), (name, ended.stderr)
        assert (str(crashing.source) in ended.stderr) == (call == "pread64"), (name, ended.stderr)
        assert not crashing.out.exists()


@pytest.mark.parametrize("call", ["flock", "copy_file_range", "fsync of a directory", "ftruncate64"])
def test_a_run_that_was_killed_there_goes_on(crashing: Crashing, call: str) -> None:
    changes = len(crashing.run(lack=[call, errno.EINVAL]).changes)
    for nth in range(1, changes, 7):
        crashing.clean()
        killed = crashing.run(lack=[call, errno.EINVAL], mode=Mode.KILL, nth=nth)
        assert killed.code == -9
        again = crashing.run(lack=[call, errno.EINVAL])
        assert again.code == 0 or "exists" in again.stderr, (nth, again.stderr)
        crashing.check(complete=True)
        assert [p.name for p in crashing.target.iterdir()] == ["out"]


def test_two_runs_without_flock(crashing: Crashing) -> None:
    for _ in range(8):
        crashing.clean()
        ended = crashing.run(lack=["flock", errno.ENOLCK], side_by_side=2)
        assert 0 in ended.codes, ended.stderr
        assert set(ended.codes) <= {0, 1}
        assert "unexpected" not in ended.stderr
        crashing.check(complete=True)


HOLDERS = {
    "another machine": "far-away 1-2-3 17\n",
    "nobody knows": "",
    "no text": "\0\xff\xfe",
    "no process": "{host} {boot} x\n",
    "this machine, now": "{host} {boot} {pid}\n",
}
GONE = {"before the last start": "{host} another-boot 1\n", "a process that has ended": "{host} {boot} 4194303\n"}


@pytest.mark.parametrize("holder", [*HOLDERS, *GONE])
def test_a_lock_that_was_left(crashing: Crashing, holder: str) -> None:
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    text = {**HOLDERS, **GONE}[holder].format(host=socket.gethostname(), boot=boot, pid=os.getpid())
    lock = crashing.out.with_name("out.partial.lock")
    lock.write_text(text, encoding="utf-8")
    ended = crashing.run(lack=["flock", errno.ENOSYS])
    if holder in GONE:
        assert ended.code == 0, ended.stderr
        crashing.check(complete=True)
        assert not lock.exists()
    else:
        said_so(ended)
        assert f"delete {lock}" in ended.stderr
        assert lock.read_text(encoding="utf-8") == text
