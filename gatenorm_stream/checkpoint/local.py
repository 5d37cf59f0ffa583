"""Bytes of files in a local directory, memory-mapped.

Mapped pages count as resident memory once they are touched, so whoever reads releases what it has read
(`LocalFile.release`): the resident size stays flat however large the checkpoint is.
"""

from __future__ import annotations

import mmap
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from gatenorm_stream.checkpoint.ranges import ByteRange
from gatenorm_stream.errors import CheckpointError

MAPPED_TOGETHER = max(2 << 20, mmap.PAGESIZE)
"""Linux maps up to this many aligned bytes of a cached file when one page of them is touched (a huge page)."""


class LocalFile:
    """A regular file, mapped read-only. Its size is fixed at the time of opening."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            if not stat.S_ISREG(os.stat(path).st_mode):
                raise CheckpointError(f"{path} is not a regular file; a checkpoint's files must be")
            self._fd = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
        except OSError as error:
            raise CheckpointError(f"{path} can't be read: {error.strerror}") from error
        found = os.fstat(self._fd)
        self.size = found.st_size
        self._modified_ns = found.st_mtime_ns
        self._map = mmap.mmap(self._fd, self.size, access=mmap.ACCESS_READ) if self.size else None

    @property
    def where(self) -> str:
        return str(self.path)

    @property
    def identity(self) -> str:
        return f"{self.size} {self._modified_ns}"

    @property
    def sha256(self) -> None:
        return None

    def read(self, where: ByteRange) -> memoryview:
        """The bytes of `where` without copying them.

        Raises CheckpointError if the file is shorter than `where`, or was cut short since it was opened (a
        mapping of bytes that are gone would kill the process).
        """
        if where.stop > self.size or os.fstat(self._fd).st_size < where.stop:
            raise CheckpointError(f"{self.path} ends before byte {where.stop}: it was cut short; restore it")
        return memoryview(self._map if self._map is not None else b"")[where.start : where.stop]

    fetch = read

    def release(self, where: ByteRange) -> None:
        """Gives the pages around `where` back to the system; reading them again is still right.

        The kernel maps a page's neighbours along with it; the range is widened so that they go with it.
        """
        if self._map is None or not where or not hasattr(mmap, "MADV_DONTNEED"):
            return
        start = where.start // MAPPED_TOGETHER * MAPPED_TOGETHER
        stop = min(-(-where.stop // MAPPED_TOGETHER) * MAPPED_TOGETHER, self.size)
        self._map.madvise(mmap.MADV_DONTNEED, start, stop - start)

    def segments(self, where: ByteRange) -> Iterator[tuple[ByteRange, int]]:
        yield where, self._fd

    def check_unchanged(self) -> None:
        now = os.fstat(self._fd)
        if (now.st_size, now.st_mtime_ns) != (self.size, self._modified_ns):
            raise CheckpointError(f"{self.path} changed while it was read; run again once nothing writes to it")

    def close(self) -> None:
        os.close(self._fd)


class LocalSource:
    """A directory of files, opened by name and kept open until `close`."""

    remote = False
    connections = 1

    def __init__(self, root: Path, *, title: str | None = None, revision: str | None = None) -> None:
        """`title` and `revision` are those of the repository if the root is a snapshot in the Hub cache.

        Raises CheckpointError if `root` is not a directory.
        """
        if not root.is_dir():
            raise CheckpointError(
                f"{root} is {'not a directory' if root.exists() else 'not there'}; give the local directory that "
                "holds config.json and the *.safetensors files"
            )
        self.directory = root
        self.title = title or str(root)
        self.revision = revision
        self._open: dict[str, LocalFile] = {}

    def names(self) -> tuple[str, ...]:
        """Relative POSIX paths of all regular files below the root, sorted; hidden ones left out.

        A symbolic link counts if it leads to a file within the root, or within the blob folder of the Hub cache
        whose snapshot the root is; any other link is left out, since following it would leave the checkpoint.
        """
        found: list[str] = []
        for folder, subfolders, files in os.walk(self.directory):
            subfolders[:] = [s for s in subfolders if not s.startswith(".")]
            for name in files:
                path = Path(folder, name)
                if not name.startswith(".") and path.is_file() and self._within(path):
                    found.append(path.relative_to(self.directory).as_posix())
        return tuple(sorted(found))

    def open(self, name: str) -> LocalFile:
        """Raises CheckpointError if `name` is not a readable regular file of this directory."""
        if name not in self._open:
            path = self.directory / name
            if not path.exists():
                raise CheckpointError(f"{path} is not there; download the missing file")
            if not self._within(path):
                raise CheckpointError(f"{path} leads out of {self.directory}: refused")
            self._open[name] = LocalFile(path)
        return self._open[name]

    def cancel(self) -> None:
        pass

    def close(self) -> None:
        for file in self._open.values():
            file.close()
        self._open.clear()

    def _within(self, path: Path) -> bool:
        root = self.directory.resolve()
        homes = [root]
        if root.parent.name == "snapshots":
            homes.append(root.parent.parent / "blobs")
        real = path.resolve()
        return any(real.is_relative_to(home) for home in homes)
