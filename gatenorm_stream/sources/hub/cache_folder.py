"""The folder of a repository in the Hub cache, in huggingface_hub's layout: blobs by digest, links to them, refs.

The cache, or that folder, may be a link to another disk; below it everything goes by descriptors, through no link.
"""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from gatenorm_stream.disk import UNSUPPORTED
from gatenorm_stream.folder import Folder, open_folder
from gatenorm_stream.sources.hub.listing import Entry


class CacheFolder:
    """`home` is the repository's, `blobs` and `locks` are what it has of those."""

    def __init__(self, home: Folder, blobs: Folder, locks: Folder) -> None:
        self._home, self.blobs, self._locks = home, blobs, locks

    def has(self, entry: Entry) -> bool:
        found = self.blobs.found(entry.etag)
        return found is not None and stat.S_ISREG(found.st_mode) and found.st_size == entry.size

    def held(self, entry: Entry) -> int:
        """Bytes of it that take room already."""
        if self.has(entry):
            return entry.size or 0
        found = self.blobs.found(unfinished(entry))
        return min(found.st_blocks * 512, entry.size or 0) if found and stat.S_ISREG(found.st_mode) else 0

    @contextmanager
    def locked(self, entry: Entry, waiting: Callable[[], object]) -> Iterator[None]:
        """By the lock that huggingface_hub takes, too; `waiting` is told if another has it."""
        with open(self._locks.open(f"{entry.etag}.lock", os.O_RDWR | os.O_CREAT), "rb") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                waiting()
                fcntl.flock(lock, fcntl.LOCK_EX)
            except OSError as error:
                if error.errno not in UNSUPPORTED:
                    raise
            yield

    def point(self, commit: str, entry: Entry) -> None:
        """A link from the commit's snapshot to the blob; where there are no links, the file itself."""
        with self._above(f"snapshots/{commit}/{entry.name}") as (folder, name):
            blob = "../" * (entry.name.count("/") + 2) + f"blobs/{entry.etag}"
            if found := folder.found(name):
                if stat.S_ISLNK(found.st_mode):
                    there = os.readlink(name, dir_fd=folder.handle) == blob
                else:
                    there = stat.S_ISREG(found.st_mode) and found.st_size == entry.size
                if there:
                    return
                folder.unlink(name)
            try:
                os.symlink(blob, name, dir_fd=folder.handle)
            except OSError:
                os.replace(entry.etag, name, src_dir_fd=self.blobs.handle, dst_dir_fd=folder.handle)

    def name_commit(self, revision: str, commit: str) -> None:
        """So that the branch or tag is found where there is no network."""
        with self._above(f"refs/{revision}") as (folder, name):
            fresh = f"{name}.{os.getpid()}.tmp"
            folder.write(fresh, commit.encode())
            os.replace(fresh, name, src_dir_fd=folder.handle, dst_dir_fd=folder.handle)

    @contextmanager
    def _above(self, path: str) -> Iterator[tuple[Folder, str]]:
        """The folder that `path` lies in, made if it is not there, and the name there."""
        *above, name = path.split("/")
        with ExitStack() as stack:
            folder = self._home
            for each in above:
                folder = stack.enter_context(folder.folder(each, make=True))
            yield folder, name


@contextmanager
def open_cache(home: Path) -> Iterator[CacheFolder]:
    """Raises OSError, and OutputError for what is no folder, or no plain file, where one should be."""
    home.mkdir(parents=True, exist_ok=True)
    with (
        open_folder(home) as folder,
        folder.folder("blobs", make=True) as blobs,
        open_folder(home.parent) as cache,
        cache.folder(".locks", make=True) as locks,
        locks.folder(home.name, make=True) as ours,
    ):
        yield CacheFolder(folder, blobs, ours)


def unfinished(entry: Entry) -> str:
    return f"{entry.etag}.gatenorm.incomplete"
