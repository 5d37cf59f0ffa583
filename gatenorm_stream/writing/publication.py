"""The last act: what is complete and synced gets its name.

What is replaced changes its name with what is new in one step, where kernel and file system can; elsewhere it is
moved away first. The card and the record of a GGUF file follow it; `verify` knows the moments between. Meanwhile
`OUT.replaced-*` beside it holds the journal, and what is being replaced. A run that is killed there leaves it; the
next one undoes what was begun, or, if the output has its name, finishes.
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from gatenorm_stream.disk import sync_names
from gatenorm_stream.errors import OutputError
from gatenorm_stream.folder import Folder, open_folder
from gatenorm_stream.names import CARD, RECORD
from gatenorm_stream.planning.gguf_layout import MODEL
from gatenorm_stream.sources.hub.retry import Note
from gatenorm_stream.writing.journal import Journal
from gatenorm_stream.writing.lock import locked
from gatenorm_stream.writing.partial import JOURNAL, publish_mode
from gatenorm_stream.writing.record import beside
from gatenorm_stream.writing.renames import exchange, move
from gatenorm_stream.writing.replaced import (
    Earlier,
    check_only_ours,
    digest_in,
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
        journal.add_publication(os.fstat(partial.handle).st_ino, earlier.inode if earlier else None)
        with _aside(partial, home, out) as aside:
            if earlier and exchange(home, partial.path.name, home, out.name):
                move(home, partial.path.name, aside, out.name)
            else:
                if earlier:
                    move(home, out.name, aside, out.name)
                _take_name(partial, home, partial.path.name, home, out)
            publish_mode(partial)
            sync_names(home.handle, home.path)
            if earlier:
                discard_directory(aside, out.name, earlier)
        name_leftovers(home, out, note)


def publish_file(partial: Folder, journal: Journal, out: Path, force: bool, note: Note) -> None:
    """A GGUF file, its record and its card. Where they replace nothing, the file comes last, so that there is never
    one without a record.

    Raises OutputError if one of them is there by now, unless `force` lets them be replaced; OSError.
    """
    files = files_of(out)
    with open_folder(out.parent) as home:
        there = [path.name for path in files.values() if home.found(path.name)]
        earlier = check_only_ours(earlier_file(home, out, digests=True), out) if force and there else None
        _check_here(home, partial)
        digests = {name: journal.finished[name].blake3 for name in (MODEL, CARD)}
        journal.add_publication({**digests, RECORD: digest_in(partial, RECORD)})
        with _aside(partial, home, out) as aside:
            if earlier and out.name in there and exchange(partial, MODEL, home, out.name):
                follow(partial, home, out, aside, (CARD, RECORD))
            else:
                for each in there if earlier else ():
                    move(home, each, aside, each)
                for name in reversed(files):
                    _take_name(partial, partial, name, home, files[name])
            sync_names(home.handle, home.path)
            if earlier:
                discard(aside, _again(earlier, aside))
        name_leftovers(home, out, note)


def files_of(out: Path) -> dict[str, Path]:
    """Where a GGUF file, its card and its record come to lie, by the names that they have before."""
    return {MODEL: out, **{name: beside(out)[name] for name in (CARD, RECORD)}}


def follow(partial: Folder, home: Folder, out: Path, aside: Folder, new: Collection[str]) -> None:
    """A GGUF file has changed its name with the earlier one: now what of card and record is `new` and still in
    `partial` does; then the earlier ones are moved aside.
    """
    files = files_of(out)
    for name in (n for n in files if n in new):
        if not (home.found(files[name].name) and exchange(partial, name, home, files[name].name)):
            move(partial, name, home, files[name].name)
    sync_names(home.handle, home.path)
    for name, path in files.items():
        if partial.found(name):
            move(partial, name, aside, path.name)


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
def _aside(partial: Folder, home: Folder, out: Path) -> Iterator[Folder]:
    """The folder that holds the journal until the output has its name; while it does, this run is not over."""
    name = f"{out.name}.replaced-{secrets.token_hex(4)}"
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
        if home.ends_at(folder):
            raise OutputError(f"{out} is another file system, and is not replaced; choose a directory below it")
        return check_only_ours(earlier_directory(folder, digests=True), out)


def discard_directory(aside: Folder, name: str, earlier: Earlier) -> None:
    with aside.folder(name) as old:
        discard(old, earlier)
    with suppress(OSError):
        aside.rmdir(name)


def _again(earlier: Earlier, aside: Folder) -> Earlier:
    """Of files that were renamed themselves, which changes their ctime: still the same inode, size and time."""
    now = {name: found for name in earlier.ours if (found := aside.found(name))}
    same = {name: seen(found) for name, found in now.items() if seen(found)[:3] == earlier.ours[name][:3]}
    return Earlier(same, {})
