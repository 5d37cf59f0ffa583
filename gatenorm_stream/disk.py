"""What the disk promises: bytes that are on it when a call returns, and whether copies share their blocks."""

from __future__ import annotations

import fcntl
import os
import struct
from functools import cache
from pathlib import Path

FICLONERANGE = 0x4020940D
"""Of Linux (ioctl_ficlonerange(2)): source descriptor, its offset, length or 0 for all, target offset."""


@cache
def boot_id() -> str | None:
    """Stands for this run of the machine: until the next one, bytes that were written are there, synced or not."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        return None


def write_synced(path: Path, text: str) -> None:
    with open(path, "wb") as file:
        file.write(text.encode("utf-8"))
        file.flush()
        os.fsync(file.fileno())


def sync_tree(path: Path) -> None:
    """The names in a directory and in those below it."""
    for folder, _, _ in os.walk(path):
        sync_directory(Path(folder))


def sync_directory(path: Path) -> None:
    """The names in a directory."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def shares_blocks(file: Path, folder: Path) -> bool:
    """Tried on a file in `folder` that has no name and goes at once."""
    try:
        source = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        target = os.open(folder, os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o600)
        try:
            fcntl.ioctl(target, FICLONERANGE, struct.pack("=qQQQ", source, 0, 0, 0))
        finally:
            os.close(target)
    except (OSError, AttributeError):
        return False
    finally:
        os.close(source)
    return True
