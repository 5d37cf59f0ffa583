"""Fetched ranges kept on disk: a sparse file of the original's size, and a list of what is in it.

A line of the list is written after its bytes. It holds for as long as the machine runs, since nothing is synced:
what is lost with the machine is fetched again.
"""

from __future__ import annotations

import errno
import os
import re
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile, gettempdir
from threading import Lock

from gatenorm_stream.disk import boot_id, set_size, sync_file
from gatenorm_stream.errors import OutputError
from gatenorm_stream.folder import Folder
from gatenorm_stream.sources.local_file import LocalFile
from gatenorm_stream.sources.ranges import ByteRange

_LINE = re.compile(r"(\d{1,20}) (\d{1,20}) (\S+)\n", re.ASCII)
MOST_LINES = 64 << 20
"""Bytes of a list that are read."""


def _nameless() -> int:
    with TemporaryFile(prefix="gatenorm-") as file:
        return os.dup(file.fileno())


class SpoolFile:
    """Bytes of one remote file at their own offsets; `name` in `folder` belongs to this very version of it.

    Without a folder it is a temporary file that has no name, and goes with the process however that ends.
    """

    def __init__(self, folder: Folder | None, name: str, size: int) -> None:
        self._lock = Lock()
        self._present: list[ByteRange] = []
        self._folder, self._list = folder, f"{name}.ranges"
        self._path = folder.path / name if folder else Path(gettempdir())
        with self._writing():
            self._fd = folder.open(name, os.O_RDWR | os.O_CREAT) if folder else _nameless()
            try:
                if folder and os.fstat(self._fd).st_size != size:
                    folder.unlink(self._list)
                set_size(self._fd, size)
                for line in self._read_ranges(size):
                    self._insert(line)
            except BaseException:
                os.close(self._fd)
                raise
        self.local = LocalFile(self._path, os.dup(self._fd))

    @property
    def descriptor(self) -> int:
        return self._fd

    def write(self, position: int, block: bytes) -> None:
        """Raises OutputError if the disk doesn't take it."""
        with self._writing():
            while block:
                written = os.pwrite(self._fd, block, position)
                if not written:
                    raise OSError(errno.EIO, "nothing of it is taken")
                position, block = position + written, block[written:]

    def add(self, where: ByteRange) -> None:
        """Says that all of `where` has been written."""
        with self._lock, self._writing():
            if self._folder:
                if boot_id() is None:
                    sync_file(self._fd, self._path, data_only=True)
                with open(self._folder.open(self._list, os.O_WRONLY | os.O_CREAT | os.O_APPEND), "a") as lines:
                    lines.write(f"{where.start} {where.stop} {boot_id()}\n")
            self._insert(where)

    def segments(self, where: ByteRange) -> Iterator[tuple[ByteRange, bool]]:
        """`where` in consecutive pieces, each with whether it is here."""
        with self._lock:
            present = list(self._present)
        position = where.start
        for held in present[max(0, bisect_right(present, where.start, key=lambda r: r.start) - 1) :]:
            if held.start >= where.stop:
                break
            start, stop = max(held.start, position), min(held.stop, where.stop)
            if start >= stop:
                continue
            if position < start:
                yield ByteRange(position, start), False
            yield ByteRange(start, stop), True
            position = stop
        if position < where.stop:
            yield ByteRange(position, where.stop), False

    def close(self) -> None:
        os.close(self._fd)
        self.local.close()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            where = self._folder.path if self._folder else self._path
            raise OutputError(
                f"{where} can't be written: {error.strerror}; free some space and run the same command again, it "
                "resumes"
            ) from error

    def _insert(self, where: ByteRange) -> None:
        """Keeps the list sorted and without overlaps."""
        merged: list[ByteRange] = []
        for r in sorted([*self._present, where]):
            if merged and r.start <= merged[-1].stop:
                merged[-1] = ByteRange(merged[-1].start, max(merged[-1].stop, r.stop))
            else:
                merged.append(r)
        self._present = merged

    def _read_ranges(self, size: int) -> Iterator[ByteRange]:
        if not self._folder:
            return
        try:
            text = self._folder.read(self._list, MOST_LINES).decode("ascii")
        except (FileNotFoundError, UnicodeDecodeError):
            return
        for line in text.splitlines(keepends=True):
            match = _LINE.fullmatch(line)
            if match and int(match[1]) <= int(match[2]) <= size and match[3] == str(boot_id()):
                yield ByteRange(int(match[1]), int(match[2]))
