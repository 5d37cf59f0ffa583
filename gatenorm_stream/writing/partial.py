"""`OUT.partial`: where an output grows, held by one run at a time, and private until it is whole."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from gatenorm_stream.errors import OutputError
from gatenorm_stream.folder import Folder, not_plain, open_folder
from gatenorm_stream.names import OWN_PREFIX, RECORD
from gatenorm_stream.writing.lock import locked

JOURNAL = f"{OWN_PREFIX}journal"
SPOOL = f"{OWN_PREFIX}spool"
"""The folder in it that keeps what was fetched before it was known which bytes stay."""
_OTHERS_WRITE = 0o022
_PRIVATE = 0o700


@contextmanager
def open_partial(out: Path, *, restart: bool = False) -> Iterator[Folder]:
    """The directory, open and locked; the lock goes with the process, however it ends. `restart` empties it.

    Raises OutputError, also if it is a link, belongs to someone else or may be written to by others, or if there is
    anything in it through which a file elsewhere could be written to.
    """
    partial = partial_path(out)
    try:
        if not partial.parent.is_dir():
            partial.parent.mkdir(parents=True, exist_ok=True)
        with open_folder(partial.parent) as home:
            made = home.make(partial.name, _PRIVATE)
            folder = home.folder(partial.name)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR):
            raise OutputError(f"{partial} is not a directory; delete it, or choose another --out") from error
        raise OutputError(f"{partial} can't be written: {error.strerror}; choose another --out") from error
    with folder, locked(folder.handle, partial):
        if not made and (owner := os.fstat(folder.handle).st_uid) != os.geteuid():
            raise OutputError(f"{partial} belongs to another user ({owner}); choose another --out")
        _make_private(folder, restart)
        if restart:
            _empty(folder)
        _check_contents(folder)
        yield folder


def partial_path(out: Path) -> Path:
    """Raises OutputError for what has no name that it could get."""
    if out.name in ("", ".."):
        raise OutputError(f"{out} is no name for an output; give one for --out, such as {out / 'pruned'}")
    return out.with_name(out.name + ".partial")


def clear(partial: Folder, *, keep: Collection[str] = ()) -> None:
    """Deletes all but `keep`. What shows that it is ours goes last, for the case that this run is cut off too: the
    journal after the record, which alone would be that of a finished output.
    """
    for name in sorted(partial.names(), key=lambda n: (n == JOURNAL, _shows_us(n))):
        if name not in keep:
            partial.remove(name)


def check_ours(partial: Folder) -> None:
    """Raises OutputError if what is in it was not left by an unfinished run of ours."""
    names = partial.names()
    if RECORD in names and JOURNAL not in names:
        raise OutputError(
            f"{partial.path} is a finished output, and is not written over; rename it, or choose another --out"
        )
    if names and not any(map(_shows_us, names)):
        raise OutputError(f"{partial.path} was not left by gatenorm-stream; choose another --out")


def publish_mode(folder: Folder) -> None:
    """Gives a private directory the permissions that the umask gave its files."""
    found = folder.found(RECORD)
    if found:
        mode = found.st_mode & 0o666
        with suppress(OSError):  # file systems without permissions
            special = stat.S_IMODE(os.fstat(folder.handle).st_mode) & 0o7000
            os.fchmod(folder.handle, special | mode | (mode >> 2 & 0o111))


def _make_private(folder: Folder, restart: bool) -> None:
    """Others may have put something into one that they could write to; an empty one is only made private.

    Where permissions mean nothing (FAT, CIFS), they stay as they are.
    """
    before = stat.S_IMODE(os.fstat(folder.handle).st_mode)
    if before & 0o777 == _PRIVATE:
        return
    try:
        os.fchmod(folder.handle, before & 0o7000 | _PRIVATE)
    except OSError as error:
        if os.fstat(folder.handle).st_uid != os.geteuid():
            raise OutputError(f"{folder.path} can't be made private; choose another --out") from error
        return
    if stat.S_IMODE(os.fstat(folder.handle).st_mode) & _OTHERS_WRITE:
        return
    if before & _OTHERS_WRITE and not restart and folder.names():
        os.fchmod(folder.handle, before)
        raise OutputError(
            f"others may write to {folder.path}, and what is in it may be theirs; start over with --restart, or "
            "`chmod go-w` it if you trust it"
        )


def _check_contents(folder: Folder) -> None:
    own = os.fstat(folder.handle)
    for name, found in folder.walk():
        why = not_plain(found, own)
        if stat.S_ISDIR(found.st_mode):
            why = "another file system" if found.st_dev != own.st_dev else ""
        if why:
            raise OutputError(
                f"{folder.path / name} is {why}, which gatenorm-stream does not leave there; delete it, or choose "
                "another --out"
            )


def _shows_us(name: str) -> bool:
    return name == RECORD or name.startswith(OWN_PREFIX)


def _empty(partial: Folder) -> None:
    try:
        check_ours(partial)
        clear(partial)
    except OSError as error:
        raise OutputError(f"{error.filename or partial.path} can't be deleted: {error.strerror}") from error
