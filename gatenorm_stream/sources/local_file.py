"""Bytes of a local file.

They are read into memory of our own (`pread`), not mapped: a mapped file that someone cuts short kills the process
without a word (SIGBUS), where a read that comes back short is an error with a message.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from gatenorm_stream.disk import UNSUPPORTED
from gatenorm_stream.errors import CheckpointError
from gatenorm_stream.sources.ranges import ByteRange


class LocalFile:
    """A regular file. Its size is fixed at the time of opening."""

    def __init__(self, path: Path, descriptor: int | None = None, *, sha256: str | None = None) -> None:
        """`descriptor` is the file, if it is open already; `sha256` the digest that someone vouches for."""
        self.path = path
        self.sha256 = sha256
        try:
            self._fd = open_regular(path) if descriptor is None else descriptor
        except OSError as error:
            raise unreadable(path, error) from error
        found = os.fstat(self._fd)
        self.size = found.st_size
        self._identity = f"{found.st_size} {found.st_mtime_ns}"
        self.state = _state(found)

    @property
    def title(self) -> str:
        return str(self.path)

    @property
    def identity(self) -> str:
        return self._identity

    def read(self, where: ByteRange) -> memoryview:
        """A copy of the bytes of `where`.

        Raises CheckpointError if they can't be read, or are not there (any more).
        """
        parts, position = [], where.start
        while position < where.stop:
            with self._reading():
                part = os.pread(self._fd, where.stop - position, position)
            if not part:
                raise self._cut_short(where)
            parts.append(part)
            position += len(part)
        return memoryview(parts[0] if len(parts) == 1 else b"".join(parts))

    fetch = read

    def read_into(self, where: ByteRange, buffer: memoryview) -> None:
        """Fills `buffer`, of the length of `where`, with those bytes: for memory that is used again and again.

        Raises CheckpointError as `read` does.
        """
        filled = 0
        while filled < len(where):
            with self._reading():
                count = _read_into(self._fd, buffer[filled : len(where)], where.start + filled)
            if not count:
                raise self._cut_short(where)
            filled += count

    def expect(self, where: ByteRange) -> None:
        """Has the system begin to read these bytes, where it can."""
        with suppress(AttributeError, OSError):
            os.posix_fadvise(self._fd, where.start, len(where), os.POSIX_FADV_WILLNEED)

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            lacking = error.errno in UNSUPPORTED
            step = "its file system lacks pread; copy it to another disk" if lacking else "restore it"
            raise CheckpointError(f"{self.path} can't be read: {error.strerror}; {step}") from error

    def _cut_short(self, where: ByteRange) -> CheckpointError:
        if os.fstat(self._fd).st_size >= where.stop:
            return CheckpointError(
                f"{self.path} can't be read: its file system gives no bytes up to {where.stop}; copy it elsewhere"
            )
        return CheckpointError(f"{self.path} ends before byte {where.stop}: it was cut short; restore it")

    def segments(self, where: ByteRange) -> Iterator[tuple[ByteRange, int]]:
        yield where, self._fd

    def check_unchanged(self) -> None:
        if _state(os.fstat(self._fd)) != self.state:
            raise CheckpointError(f"{self.path} changed while it was read; run again once nothing writes to it")

    def opened(self) -> os.stat_result:
        return os.fstat(self._fd)

    def close(self) -> None:
        os.close(self._fd)


def _read_into(descriptor: int, buffer: memoryview, position: int) -> int:
    """Where preadv fails or gives nothing, by pread: it says what is wrong, if anything is."""
    with suppress(OSError):
        if count := os.preadv(descriptor, [buffer], position):
            return count
    part = os.pread(descriptor, len(buffer), position)
    buffer[: len(part)] = part
    return len(part)


def unreadable(path: Path, error: OSError) -> CheckpointError:
    more = "; allow more of them (ulimit -n)" if error.errno == errno.EMFILE else ""
    return CheckpointError(f"{path} can't be read: {error.strerror}{more}")


def open_regular(path: Path) -> int:
    """A descriptor; a pipe or device is refused without waiting for it. Raises OSError, CheckpointError."""
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise irregular(path)
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise irregular(path)
    return descriptor


def irregular(path: Path) -> CheckpointError:
    return CheckpointError(f"{path} is not a regular file; a checkpoint's files must be")


def _state(found: os.stat_result) -> str:
    """A modification time may be set back by whoever changes a file; the kernel's ctime can't be."""
    return f"{found.st_size} {found.st_mtime_ns} {found.st_ctime_ns} {found.st_dev} {found.st_ino}"
