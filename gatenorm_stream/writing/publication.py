"""The last act: what is complete and synced gets its name.

A directory that is replaced changes its name with the new one in one step, where kernel and file system can. Files,
which are three of one output, and directories elsewhere are moved away first. While that is done, `OUT.replaced-*`
beside it holds the journal, and what is being replaced. A run that is killed there leaves it; the next one undoes
what was begun, or, if the output has its name, finishes.
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from gatenorm_stream.disk import sync_names
from gatenorm_stream.errors import OutputError
from gatenorm_stream.folder import Folder, open_folder
from gatenorm_stream.names import RECORD, SUFFIX
from gatenorm_stream.sources.hub.retry import Note
from gatenorm_stream.writing.journal import MOST_BYTES, Journal, read_lines
from gatenorm_stream.writing.lock import locked
from gatenorm_stream.writing.partial import JOURNAL, partial_path, publish_mode
from gatenorm_stream.writing.record import beside
from gatenorm_stream.writing.renames import exchange, move
from gatenorm_stream.writing.replaced import (
    Earlier,
    check_only_ours,
    discard,
    earlier_directory,
    earlier_file,
    seen,
)

ASIDE = re.compile(r"\.replaced-[0-9a-z_]{8}")
LONGEST_NAME = 255 - len(".replaced-01234567.lock")
"""Of an output, in bytes, so that what is called after it has a name too."""


def publish_directory(partial: Folder, journal: Journal, out: Path, force: bool, note: Note) -> None:
    """Without `force` the rename itself refuses a directory that is not empty. Raises OutputError, OSError."""
    with open_folder(out.parent) as home:
        earlier = _earlier_directory(home, out) if force else None
        _check_here(home, partial)
        with _aside(partial, journal, home, out, replaces=earlier.inode if earlier else None) as aside:
            if earlier and exchange(home, partial.path.name, out.name):
                move(home, partial.path.name, aside, out.name)
            else:
                if earlier:
                    move(home, out.name, aside, out.name)
                _take_name(partial, home, partial.path.name, home, out)
            publish_mode(partial)
            sync_names(home.handle, home.path)
            if earlier:
                _discard_directory(aside, out.name, earlier)
        name_leftovers(home, out, note)


def publish_file(partial: Folder, journal: Journal, name: str, out: Path, force: bool, note: Note) -> None:
    """The file `name`, and before it its record and card, so that there is never a file without them, nor with
    another's.

    Raises OutputError if one of them is there by now, unless `force` lets them be replaced.
    """
    companions = beside(out)
    with open_folder(out.parent) as home:
        there = [each for each in (out.name, *(path.name for path in companions.values())) if home.found(each)]
        earlier = check_only_ours(earlier_file(home, out, digests=True), out) if force and there else None
        _check_here(home, partial)
        with _aside(partial, journal, home, out) as aside:
            for each in there if earlier else ():
                move(home, each, aside, each)
            for each, path in companions.items():
                _take_name(partial, partial, each, home, path)
            _take_name(partial, partial, name, home, out)
            sync_names(home.handle, home.path)
            if earlier:
                discard(aside, _again(earlier, aside))
        name_leftovers(home, out, note)


def recover(out: Path) -> None:
    """What a run that was killed while it published left is undone or finished, unless one is at it now."""
    with suppress(OSError, OutputError), ExitStack() as stack:
        home = stack.enter_context(open_folder(out.parent))
        asides = asides_of(home, out)
        partial = None
        if home.found(partial_path(out).name):
            partial = stack.enter_context(home.folder(partial_path(out).name))
            stack.enter_context(locked(partial.handle, partial.path))
        for name in asides:
            with suppress(OSError, OutputError), home.folder(name) as aside, locked(aside.handle, aside.path):
                if aside.has_file(JOURNAL) and os.fstat(aside.handle).st_uid == os.geteuid():
                    _settle(home, out, partial, aside)
            with suppress(OSError):
                home.rmdir(name)
        if partial and home.has_file(out.name):
            home.rmdir(partial.path.name)  # emptied, by a run that was killed before it did so


def asides_of(home: Folder, out: Path) -> list[str]:
    return [n for n in home.names() if n.startswith(out.name) and ASIDE.fullmatch(n[len(out.name) :])]


def name_leftovers(home: Folder, out: Path, note: Note) -> None:
    with suppress(OSError):
        for name in asides_of(home, out):
            with suppress(OSError):
                home.rmdir(name)
                continue
            note(f"{home.path / name} holds what was left of an earlier output; look at it, then delete it")


@contextmanager
def _aside(
    partial: Folder, journal: Journal, home: Folder, out: Path, *, replaces: int | None = None
) -> Iterator[Folder]:
    """The folder that holds the journal until the output has its name; while it does, this run is not over."""
    name = f"{out.name}.replaced-{secrets.token_hex(4)}"
    journal.add_publication(replaces)
    os.mkdir(name, 0o700, dir_fd=home.handle)
    with home.folder(name) as aside:
        with locked(aside.handle, aside.path):
            move(partial, JOURNAL, aside, JOURNAL)
            yield aside
            aside.unlink(JOURNAL)
        with suppress(OSError):  # where something is left over
            home.rmdir(name)


def _take_name(partial: Folder, source: Folder, name: str, home: Folder, out: Path) -> None:
    try:
        move(source, name, home, out.name)
    except FileExistsError:
        raise OutputError(
            f"{out} was made by someone else in the meantime; move it elsewhere and run the same command again, or "
            f"choose another --out ({partial.path} is complete)"
        ) from None


def _check_here(home: Folder, partial: Folder) -> None:
    if not home.holds(partial):
        raise OutputError(f"{partial.path} was moved away while it was written; run the same command again")


def _earlier_directory(home: Folder, out: Path) -> Earlier | None:
    """None if there is nothing to be replaced."""
    if home.found(out.name) is None:
        return None
    with home.folder(out.name) as folder:
        if not folder.names():
            return None
        return check_only_ours(earlier_directory(folder, digests=True), out)


def _discard_directory(aside: Folder, name: str, earlier: Earlier) -> None:
    with aside.folder(name) as old:
        discard(old, earlier)
    with suppress(OSError):
        aside.rmdir(name)


def _again(earlier: Earlier, aside: Folder) -> Earlier:
    """Of files that were renamed themselves, which changes their ctime: still the same inode, size and time."""
    now = {name: found for name in earlier.ours if (found := aside.found(name))}
    same = {name: seen(found) for name, found in now.items() if seen(found)[:3] == earlier.ours[name][:3]}
    return Earlier(same, {})


def _settle(home: Folder, out: Path, partial: Folder | None, aside: Folder) -> None:
    is_file = out.suffix == SUFFIX
    published, replaced = _inodes(aside)
    if home.found(out.name) and not _unpublished(is_file, partial, published):
        if partial and os.fstat(partial.handle).st_ino == replaced and not partial.found(JOURNAL):
            move(home, partial.path.name, aside, out.name)  # of two that were exchanged, the earlier one
        _finish(home, out, is_file, aside)
        aside.unlink(JOURNAL)
        return
    for each, path in beside(out).items():
        if is_file and partial and not partial.found(each) and home.has_file(path.name):
            move(home, path.name, partial, each)
    for name in aside.names():
        if name != JOURNAL:
            move(aside, name, home, name)
    if partial and not partial.found(JOURNAL):
        move(aside, JOURNAL, partial, JOURNAL)
    else:
        aside.unlink(JOURNAL)


def _inodes(aside: Folder) -> tuple[int | None, int | None]:
    """By the journal, of the directory that was to get the output's name, and of the one that had it."""
    lines = read_lines(aside.read(JOURNAL, MOST_BYTES).splitlines())
    said: Mapping[str, int] = next((line for line in reversed(lines) if "publishes" in line), {})
    return said.get("publishes"), said.get("replaces")


def _unpublished(is_file: bool, partial: Folder | None, published: int | None) -> bool:
    """Whether what was to get the name is still in the `.partial`, or is it."""
    if partial is None:
        return False
    return partial.found(RECORD) is not None if is_file else os.fstat(partial.handle).st_ino == published


def _finish(home: Folder, out: Path, is_file: bool, aside: Folder) -> None:
    if is_file:
        if aside.has_file(beside(out)[RECORD].name):
            discard(aside, earlier_file(aside, out, digests=True))
        return
    with home.folder(out.name) as published:
        publish_mode(published)
    if aside.found(out.name):
        with aside.folder(out.name) as old:
            earlier = earlier_directory(old, digests=True) if old.has_file(RECORD) else Earlier({}, {})
        _discard_directory(aside, out.name, earlier)
