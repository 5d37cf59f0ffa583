"""What the disk promises: bytes that are on it when a call returns, and whether copies share their blocks.

File systems leave out calls (network disks, FUSE, containers). One that says so in its error is done without; any
other error is one.
"""

from __future__ import annotations

import errno
import fcntl
import math
import os
import shutil
import struct
from collections.abc import Callable
from functools import cache
from pathlib import Path

from gatenorm_stream.errors import OutputError

UNSUPPORTED = frozenset({errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS, errno.EPERM, errno.ENOTTY, errno.ENOLCK})
"""How a call fails that a file system, or what stands before it, does not have."""
_UNSYNCED_DIRECTORY = UNSUPPORTED | {errno.EACCES, errno.EBADF, errno.EISDIR}
"""EBADF: a directory that may be written to and not read, which can't be opened for its sync."""
FICLONERANGE = 0x4020940D
"""Of Linux (ioctl_ficlonerange(2)): source descriptor, its offset, length or 0 for all, offset in the copy."""


class SyncError(OSError):
    """Bytes may be lost, and those that were written before too."""


@cache
def boot_id() -> str | None:
    """Stands for this run of the machine: until the next one, bytes that were written are there, synced or not."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        return None


def sync_file(descriptor: int, path: Path, *, data_only: bool = False) -> bool:
    """Whether the file system has such a call; raises SyncError, naming `path`, if it has and that fails."""
    try:
        (os.fdatasync if data_only else os.fsync)(descriptor)
    except OSError as error:
        if error.errno in UNSUPPORTED:
            return False
        raise SyncError(error.errno, error.strerror, f"syncing {path}") from error
    return True


def sync_names(handle: int, path: Path) -> bool:
    """The names in an open directory; False where the file system can't."""
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno in _UNSYNCED_DIRECTORY:
            return False
        raise OSError(error.errno, error.strerror, f"syncing {path}") from error
    return True


def set_size(descriptor: int, size: int) -> None:
    """Of an open file; longer by a hole, or a zero at the end where the file system can't make holes."""
    try:
        os.ftruncate(descriptor, size)
    except OSError as error:
        held = os.fstat(descriptor).st_size
        if error.errno not in UNSUPPORTED or held > size:
            raise
        if held < size:
            os.pwrite(descriptor, b"\0", size - 1)


def check_free(folder: Path, needed: int, what: str, elsewhere: str) -> None:
    """Raises OutputError if the disk of `folder` has fewer than `needed` bytes free. Where the file system
    does not say (some network disks), it is tried. `what` needs them; `elsewhere` says how to choose another disk.
    """
    try:
        found = shutil.disk_usage(folder)
    except OSError:
        return
    if found.total and found.free < needed:
        free, needs = _in_words(found.free, math.floor), _in_words(needed, math.ceil)
        raise OutputError(f"{folder} has {free} free, {what} {needs}; free some space, or {elsewhere}")


def _in_words(count: int, rounded: Callable[[float], int]) -> str:
    """What is there is rounded down and what is needed up, so that the two never read alike."""
    return f"{rounded(count / 1e6)} MB" if count < 1e9 else f"{rounded(count / 1e7) / 100:.2f} GB"


def shares_blocks(file: Path, folder: Path) -> bool:
    """Tried on a file in `folder` that has no name and goes at once."""
    try:
        source = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        copy = os.open(folder, os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o600)
        try:
            fcntl.ioctl(copy, FICLONERANGE, struct.pack("=qQQQ", source, 0, 0, 0))
        finally:
            os.close(copy)
    except (OSError, AttributeError):
        return False
    finally:
        os.close(source)
    return True
