"""Bytes of files in a local directory.

They are read into memory of our own (`pread`), not mapped: a mapped file that someone cuts short kills the process
without a word (SIGBUS), where a read that comes back short is an error with a message.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from gatenorm_stream.disk import UNSUPPORTED
from gatenorm_stream.errors import CheckpointError
from gatenorm_stream.folder import Folder, open_through_no_link
from gatenorm_stream.names import is_safe, utf8
from gatenorm_stream.sources.links import homes, why_not_followed
from gatenorm_stream.sources.ranges import ByteRange
from gatenorm_stream.sources.source import Kind
from gatenorm_stream.sources.walk import can_be_listed, walk
from gatenorm_stream.work import Progress


class LocalFile:
    """A regular file. Its size is fixed at the time of opening."""

    def __init__(self, path: Path, descriptor: int | None = None, *, sha256: str | None = None) -> None:
        """`descriptor` is the file, if it is open already; `sha256` the digest that someone vouches for."""
        self.path = path
        self.sha256 = sha256
        try:
            self._fd = open_regular(path) if descriptor is None else descriptor
        except OSError as error:
            raise _unreadable(path, error) from error
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


def _unreadable(path: Path, error: OSError) -> CheckpointError:
    more = "; allow more of them (ulimit -n)" if error.errno == errno.EMFILE else ""
    return CheckpointError(f"{path} can't be read: {error.strerror}{more}")


def open_regular(path: Path) -> int:
    """A descriptor; a pipe or device is refused without waiting for it. Raises OSError, CheckpointError."""
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise _irregular(path)
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise _irregular(path)
    return descriptor


def _irregular(path: Path) -> CheckpointError:
    return CheckpointError(f"{path} is not a regular file; a checkpoint's files must be")


def _leads_to_folder(entry: os.DirEntry[str]) -> bool:
    """False for what can't be asked."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def _state(found: os.stat_result) -> str:
    """A modification time may be set back by whoever changes a file; the kernel's ctime can't be."""
    return f"{found.st_size} {found.st_mtime_ns} {found.st_ctime_ns} {found.st_dev} {found.st_ino}"


class LocalSource:
    """A directory of files, opened by name and kept open until `close`."""

    remote = False
    connections = 1
    keeps = True

    def __init__(
        self, root: Path, *, title: str | None = None, revision: str | None = None, gguf: tuple[str, ...] = ()
    ) -> None:
        """`title` and `revision` are those of the repository if the root is a snapshot in the Hub cache.

        Raises CheckpointError if `root` is not a directory.
        """
        if not root.is_dir():
            raise CheckpointError(
                f"{root} is {'not a directory' if root.exists() else 'not there'}; give a directory with "
                "config.json and *.safetensors files, a GGUF file, or org/name on the Hub"
            )
        self.directory = root
        self.title = utf8(title or str(root))
        self.revision = revision
        self.gguf = gguf
        self.kind = Kind.GGUF if gguf else Kind.SAFETENSORS
        self._open: dict[str, LocalFile] = {}
        self._homes = homes(root)

    def names(self) -> tuple[str, ...]:
        """Relative POSIX paths of all regular files below the root, sorted; hidden ones left out.

        A symbolic link counts if `why_not_followed` has nothing against it.
        """
        return tuple(sorted(name for name, why in self._entries() if not why))

    def apart(self) -> dict[str, str]:
        return {name: why for name, why in self._entries() if why}

    def _entries(self) -> Iterator[tuple[str, str]]:
        """What is there and not hidden: each name, and why it is no file of the source, if it is none."""
        entries = list(walk(self.directory, lambda folder: not folder.name.startswith(".")))
        above = len(os.path.join(self.directory, ""))
        for entry in entries:
            if entry.name.startswith("."):
                continue
            relative = entry.path[above:]
            if not _leads_to_folder(entry):
                yield relative, self._why_not(entry, relative)
            elif entry.is_symlink():
                yield relative, "a link to a folder"
            elif not can_be_listed(entry):
                yield relative, "a folder that can't be read"

    def _why_not(self, entry: os.DirEntry[str], name: str) -> str:
        if not is_safe(name):
            return "no name for a file of an output"
        path = Path(entry.path)
        try:
            found = entry.stat()
            if not stat.S_ISREG(found.st_mode):
                return "not a regular file"
            return why_not_followed(path, path.resolve(), found, self._homes) if entry.is_symlink() else ""
        except FileNotFoundError:
            return "a link to nothing"
        except OSError:
            return "a link that can't be followed"

    def open(self, name: str) -> LocalFile:
        """Raises CheckpointError if `name` is not a readable regular file of this directory."""
        if name not in self._open:
            path = self.directory / name
            if not path.exists():
                raise CheckpointError(f"{path} is not there; download the missing file")
            self._open[name] = LocalFile(path, self._opened(path))
        return self._open[name]

    def _opened(self, path: Path) -> int:
        """What is judged is where `path` leads to, and then the very file that was opened there, since someone may
        put a link there in between; before it is opened too, since opening may do something.
        """
        try:
            target = path.resolve()
            self._check(path, target, target.lstat())
            descriptor = open_through_no_link(target)
        except OSError as error:
            if error.errno not in (errno.ELOOP, errno.ENOTDIR, errno.ENOENT, errno.EINVAL):
                raise _unreadable(path, error) from error
            raise CheckpointError(
                f"{path} changed while it was opened; run again once nothing writes to it"
            ) from error
        try:
            self._check(path, target, os.fstat(descriptor))
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def _check(self, path: Path, target: Path, found: os.stat_result) -> None:
        if not stat.S_ISREG(found.st_mode):
            raise _irregular(path)
        if why := why_not_followed(path, target, found, self._homes):
            raise CheckpointError(f"{path} leads out of {self.directory}, and is {why}: refused")

    def check_unchanged(self) -> None:
        for file in self._open.values():
            file.check_unchanged()

    def keep_in(self, folder: Folder | None) -> None:
        if folder:
            folder.close()

    def fetch_whole(self, names: Iterable[str], progress: Progress | None = None) -> bool:
        return True

    def cancel(self) -> None:
        pass

    def close(self) -> None:
        for file in self._open.values():
            file.close()
        self._open.clear()
