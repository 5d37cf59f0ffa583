"""One run at a time writes a directory: by a lock of the kernel's, or where there is none, by a file beside it."""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from gatenorm_stream.disk import boot_id
from gatenorm_stream.errors import OutputError


@contextmanager
def locked(handle: int, folder: Path) -> Iterator[None]:
    """`handle` is the open `folder`. A lock of the kernel's goes with the process, however it ends; a file is left
    by one that was killed, and taken over by the next run on this machine.

    Raises OutputError if another run holds it, or has just renamed the directory: a lock on it would guard nothing.
    """
    file = folder.with_name(f"{folder.name}.lock")
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        by_file = False
    except BlockingIOError:
        raise _busy(folder) from None
    except OSError:  # network disks without flock say so in many ways
        by_file = True
        _take(file, folder)
    try:
        if not _is_here(handle, folder):
            raise _busy(folder)
        yield
    finally:
        if by_file:
            file.unlink(missing_ok=True)


def _is_here(handle: int, folder: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), os.lstat(folder))
    except FileNotFoundError:
        return False


def _take(file: Path, folder: Path) -> None:
    """The file says who made it: host, boot and process."""
    mine = f"{socket.gethostname()} {boot_id()} {os.getpid()}\n"
    try:
        if _made(file, mine):
            return
        holder = _read(file)
        if _has_ended(holder):
            stale = file.with_name(f"{file.name}.{os.getpid()}")
            with suppress(FileNotFoundError):  # another run may take it over at the same time
                os.rename(file, stale)
                same = _read(stale) == holder
                if not same:
                    os.rename(stale, file)
                else:
                    stale.unlink()
            if _made(file, mine):
                return
    except OSError as error:
        raise OutputError(
            f"{folder} can't be locked: its file system has no flock, and {file} can't be made ({error.strerror}); "
            "choose another --out"
        ) from error
    host, _, process = _read(file).strip().rpartition(" ")
    raise OutputError(
        f"another run is writing {folder}; wait for it to end. If there is none any more (it was process "
        f"{process or '?'} on {host.partition(' ')[0] or 'another machine'}), delete {file}"
    )


def _made(file: Path, text: str) -> bool:
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    except FileExistsError:
        return False
    with open(descriptor, "w", encoding="utf-8") as made:
        made.write(text)
    return True


def _read(file: Path) -> str:
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return ""
    with open(descriptor, encoding="utf-8", errors="replace") as held:
        return held.read(1024)


def _has_ended(holder: str) -> bool:
    """Whether the process was one of this machine's and runs no more. Of another machine's, nobody can tell."""
    host, boot, process = [*holder.split(), "", "", ""][:3]
    if host != socket.gethostname() or not process.isdecimal():
        return False
    if boot != str(boot_id()):
        return True
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False


def _busy(folder: Path) -> OutputError:
    return OutputError(f"another run is writing {folder}; wait for it to end")
