"""Bytes that are on the disk when the call returns."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path


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
