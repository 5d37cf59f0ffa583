"""An open directory: what is done in it goes by its descriptor, one name at a time, and through no link.

A path says where a thing was when it was looked up; a descriptor is the thing.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from gatenorm_stream.disk import sync_file, sync_names
from gatenorm_stream.errors import OutputError

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_PLAIN = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
DEEPEST = 32
"""Folders in folders; a name in an output has a few."""


class Folder:
    """Closed with `close`, or as a context. `path` is for messages.

    Methods raise OSError, with the whole path in it, and OutputError for what is no plain file or folder.
    """

    def __init__(self, handle: int, path: Path) -> None:
        self.handle = handle
        self.path = path

    def __enter__(self) -> Folder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        os.close(self.handle)

    def names(self) -> list[str]:
        return sorted(os.listdir(self.handle))

    def found(self, name: str) -> os.stat_result | None:
        """What `name` is, a link itself; None if there is none."""
        with self._named(name), suppress(FileNotFoundError):
            return os.stat(name, dir_fd=self.handle, follow_symlinks=False)
        return None

    def has_file(self, name: str) -> bool:
        found = self.found(name)
        return found is not None and stat.S_ISREG(found.st_mode)

    def folder(self, name: str, *, make: bool = False, mode: int = 0o777) -> Folder:
        found = self.found(name)
        if found is None and make:
            with self._named(name), suppress(FileExistsError):
                os.mkdir(name, mode, dir_fd=self.handle)
        elif found is not None and not stat.S_ISDIR(found.st_mode):
            raise OutputError(f"{self.path / name} is not a directory, and nothing is written there; delete it")
        with self._named(name):
            handle = os.open(name, _DIRECTORY | os.O_NOFOLLOW, dir_fd=self.handle)
        return Folder(handle, self.path / name)

    def open(self, name: str, flags: int = os.O_RDONLY) -> int:
        """A descriptor of a plain file that has no other name; `name` may lie in subfolders, which O_CREAT makes.

        A pipe or device is refused without waiting for it.
        """
        above, _, below = name.partition("/")
        if below:
            with self.folder(above, make=bool(flags & os.O_CREAT)) as folder:
                return folder.open(below, flags)
        if found := self.found(name):
            self._check(name, found)
        with self._named(name):
            handle = os.open(name, flags | _PLAIN, 0o666, dir_fd=self.handle)
        try:
            self._check(name, os.fstat(handle))
        except OutputError:
            os.close(handle)
            raise
        return handle

    def read(self, name: str, most: int) -> bytes:
        with open(self.open(name), "rb") as file:
            return file.read(most)

    def write(self, name: str, text: bytes) -> bool:
        """A new file, in the place of one that has the name. Whether it is on the disk then."""
        self.unlink(name)
        with open(self.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL), "wb") as file:
            file.write(text)
            file.flush()
            return sync_file(file.fileno(), self.path / name)

    def unlink(self, name: str) -> None:
        above, _, below = name.partition("/")
        if below:
            with self.folder(above) as folder:
                folder.unlink(below)
            return
        with self._named(name), suppress(FileNotFoundError):
            os.unlink(name, dir_fd=self.handle)

    def rmdir(self, name: str) -> None:
        with self._named(name):
            os.rmdir(name, dir_fd=self.handle)

    def remove(self, name: str) -> None:
        """With all that is in it; refused if another file system begins there."""
        found = self.found(name)
        if found is None:
            return
        if not stat.S_ISDIR(found.st_mode):
            return self.unlink(name)
        with self.folder(name) as inner:
            if self.ends_at(inner):
                raise OutputError(f"{inner.path} is another file system; unmount it, nothing in it is deleted")
            for each in inner.names():
                inner.remove(each)
        self.rmdir(name)

    def walk(self, depth: int = 0) -> Iterator[tuple[str, os.stat_result]]:
        """What is below, by relative POSIX path, a folder before what is in it. What is mounted is not entered."""
        for name in self.names():
            if (found := self.found(name)) is None:
                continue
            yield name, found
            if stat.S_ISDIR(found.st_mode):
                if depth == DEEPEST:
                    raise OutputError(f"{self.path} lies deeper than any folder of an output; delete it")
                with self.folder(name) as inner:
                    if not self.ends_at(inner):
                        for below, what in inner.walk(depth + 1):
                            yield f"{name}/{below}", what

    def ends_at(self, inner: Folder) -> bool:
        """Whether another file system, or another part of this one, is mounted there."""
        return _mount(self.handle) != _mount(inner.handle)

    def holds(self, inner: Folder) -> bool:
        """Whether the name of `inner` still stands for it."""
        found = self.found(inner.path.name)
        return found is not None and os.path.samestat(found, os.fstat(inner.handle))

    def sync(self) -> bool:
        """The names in it and below; False where the file system can't."""
        synced = [sync_names(self.handle, self.path)]
        for name in self.names():
            found = self.found(name)
            if found and stat.S_ISDIR(found.st_mode):
                with self.folder(name) as inner:
                    synced.append(inner.sync())
        return all(synced)

    def _check(self, name: str, found: os.stat_result) -> None:
        if why := not_plain(found, os.fstat(self.handle)):
            raise OutputError(f"{self.path / name} is {why}, and nothing is written there; delete it")

    @contextmanager
    def _named(self, name: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise type(error)(error.errno, error.strerror, str(self.path / name)) from error


def open_folder(path: Path) -> Folder:
    """Links on the way to it are followed: the user named it. Raises OSError."""
    try:
        return Folder(os.open(path, _DIRECTORY), path)
    except PermissionError:  # it may be written to and not read
        return Folder(os.open(path, getattr(os, "O_PATH", 0) | os.O_DIRECTORY | os.O_CLOEXEC), path)


def not_plain(found: os.stat_result, folder: os.stat_result) -> str:
    """What speaks against writing to a file in `folder`: empty if it is a plain one, whose only name is there."""
    if stat.S_ISLNK(found.st_mode):
        return "a link"
    if not stat.S_ISREG(found.st_mode):
        return "not a regular file"
    if found.st_nlink > 1:
        return "a file that has another name too (a hard link)"
    if found.st_uid not in (os.geteuid(), folder.st_uid):
        return "another user's file"
    return ""


def _mount(handle: int) -> tuple[int, str]:
    """The device and, where /proc tells it, the mount: one file system may be mounted twice."""
    lines = [""]
    with suppress(OSError):
        lines = Path(f"/proc/self/fdinfo/{handle}").read_text("ascii").splitlines()
    return os.fstat(handle).st_dev, next((line for line in lines if line.startswith("mnt_id")), "")
