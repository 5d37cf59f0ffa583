"""A model's folder on this machine."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from gatenorm_stream.errors import CheckpointError
from gatenorm_stream.folder import Folder, open_through_no_link
from gatenorm_stream.names import is_safe, utf8
from gatenorm_stream.sources.links import homes, why_not_followed
from gatenorm_stream.sources.local_file import LocalFile, irregular, unreadable
from gatenorm_stream.sources.source import Kind
from gatenorm_stream.sources.walk import can_be_listed, walk
from gatenorm_stream.work import Progress


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
            self._open[name] = LocalFile(path, open_in(self.directory, path, self._homes))
        return self._open[name]

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


def _leads_to_folder(entry: os.DirEntry[str]) -> bool:
    """False for what can't be asked."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def open_in(root: Path, path: Path, within: tuple[Path, ...]) -> int:
    """A descriptor of the regular file that `path` in the folder `root` leads to; `within` are the folder's homes.

    What is judged is where `path` leads to, and then the very file that was opened there, since someone may put a
    link there in between; before it is opened too, since opening may do something. Raises CheckpointError.
    """
    try:
        target = path.resolve()
        _check(root, path, target, target.lstat(), within)
        descriptor = open_through_no_link(target)
    except (OSError, RuntimeError) as error:  # the latter for a circle of links, up to Python 3.12
        gone = (errno.ELOOP, errno.ENOTDIR, errno.ENOENT, errno.EINVAL)
        if isinstance(error, OSError) and error.errno not in gone:
            raise unreadable(path, error) from error
        raise CheckpointError(f"{path} changed while it was opened; run again once nothing writes to it") from error
    try:
        _check(root, path, target, os.fstat(descriptor), within)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _check(root: Path, path: Path, target: Path, found: os.stat_result, within: tuple[Path, ...]) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise irregular(path)
    if why := why_not_followed(path, target, found, within):
        raise CheckpointError(f"{path} leads out of {root}, and is {why}: refused")
