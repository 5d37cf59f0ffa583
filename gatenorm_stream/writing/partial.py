"""`OUT.partial`: where an output grows, held by one run at a time."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from gatenorm_stream.errors import OutputError
from gatenorm_stream.names import OWN_PREFIX, RECORD
from gatenorm_stream.writing.lock import locked

SPOOL = f"{OWN_PREFIX}spool"
"""The folder in it that keeps what was fetched before it was known which bytes stay."""


@contextmanager
def open_partial(out: Path, *, restart: bool = False) -> Iterator[Path]:
    """The directory, locked; the lock goes with the process, however it ends. With `restart` it is emptied.

    Raises OutputError, also if it is a link or belongs to someone else, who could change what is written.
    """
    partial = partial_path(out)
    try:
        handle = _opened(partial)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR):
            raise OutputError(f"{partial} is not a directory; delete it, or choose another --out") from error
        raise OutputError(f"{partial} can't be written: {error.strerror}; choose another --out") from error
    try:
        with locked(handle, partial):
            if restart:
                _empty(partial)
            yield partial
    finally:
        os.close(handle)


def partial_path(out: Path) -> Path:
    return out.with_name(out.name + ".partial")


def left_by_us(partial: Path) -> bool:
    """Whether an unfinished run of ours left what is in it."""
    return any(_shows_us(p.name) for p in partial.iterdir())


def _opened(partial: Path) -> int:
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        partial.mkdir(parents=True)
        return os.open(partial, flags)
    except FileExistsError:
        handle = os.open(partial, flags)
    if (owner := os.fstat(handle).st_uid) != os.geteuid():
        os.close(handle)
        raise OutputError(f"{partial} belongs to another user ({owner}); choose another --out")
    return handle


def clear(partial: Path, *, keep: Collection[str] = ()) -> None:
    """Deletes all but `keep`. What shows that it is ours goes last, for the case that this run is cut off too."""
    for path in sorted(partial.iterdir(), key=lambda p: _shows_us(p.name)):
        if path.name not in keep:
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def _shows_us(name: str) -> bool:
    return name == RECORD or name.startswith(OWN_PREFIX)


def _empty(partial: Path) -> None:
    try:
        if any(partial.iterdir()) and not left_by_us(partial):
            raise OutputError(f"{partial} was not left by gatenorm-stream; choose another --out")
        clear(partial)
    except OSError as error:
        raise OutputError(f"{error.filename or partial} can't be deleted: {error.strerror}") from error
