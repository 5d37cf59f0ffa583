"""What a run that was killed while it published left beside the output: the next one undoes or finishes it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from gatenorm_stream.errors import OutputError
from gatenorm_stream.folder import Folder, open_folder
from gatenorm_stream.names import RECORD, SUFFIX
from gatenorm_stream.planning.gguf_layout import MODEL
from gatenorm_stream.writing.journal import MOST_BYTES, read_lines
from gatenorm_stream.writing.lock import locked
from gatenorm_stream.writing.partial import JOURNAL, partial_path, publish_mode
from gatenorm_stream.writing.publication import asides_of, discard_directory, files_of, follow
from gatenorm_stream.writing.renames import move
from gatenorm_stream.writing.replaced import Earlier, digest_in, discard, earlier_directory, earlier_file


def recover(out: Path) -> None:
    """Undoes what was begun, or finishes if the output has its name; unless a run is at it now."""
    with suppress(OSError, OutputError), ExitStack() as stack:
        home = stack.enter_context(open_folder(out.parent))
        asides = asides_of(home, out)
        partial = None
        if home.found(partial_path(out).name):
            partial = stack.enter_context(home.folder(partial_path(out).name))
            stack.enter_context(locked(partial.handle, partial.path))
        for name in asides:
            with suppress(OSError, OutputError), home.folder(name) as aside, locked(aside.handle, aside.path):
                if aside.has_file(JOURNAL):
                    settle = _settle_file if out.suffix == SUFFIX else _settle_directory
                    settle(home, out, partial, aside)
            with suppress(OSError):
                home.rmdir(name)
        if partial and home.has_file(out.name):
            home.rmdir(partial.path.name)  # emptied, by a run that was killed before it did so


def _settle_directory(home: Folder, out: Path, partial: Folder | None, aside: Folder) -> None:
    said, inode = _said(aside), os.fstat(partial.handle).st_ino if partial else None
    if home.found(out.name) and not (partial and inode == said.get("publishes")):
        if partial and inode == said.get("replaces") and not partial.found(JOURNAL):
            move(home, partial.path.name, aside, out.name)  # of two that were exchanged, the earlier one
        with home.folder(out.name) as published:
            publish_mode(published)
        if aside.found(out.name):
            with aside.folder(out.name) as old:
                earlier = earlier_directory(old, digests=True) if old.has_file(RECORD) else Earlier({}, {})
            discard_directory(aside, out.name, earlier)
        aside.unlink(JOURNAL)
    else:
        _undo(home, partial, aside)


def _settle_file(home: Folder, out: Path, partial: Folder | None, aside: Folder) -> None:
    match _said(aside):
        case {"publishes": dict(digests)}:
            new = [
                n
                for n in files_of(out)
                if partial and partial.has_file(n) and digest_in(partial, n) == digests.get(n)
            ]
        case _:
            return
    if home.has_file(out.name) and MODEL not in new:
        if partial:
            follow(partial, home, out, aside, new)
        if aside.has_file(files_of(out)[RECORD].name):
            discard(aside, earlier_file(aside, out, digests=True))
        aside.unlink(JOURNAL)
        return
    for name, path in files_of(out).items():
        if name != MODEL and partial and not partial.found(name) and home.has_file(path.name):
            move(home, path.name, partial, name)
    _undo(home, partial, aside)


def _undo(home: Folder, partial: Folder | None, aside: Folder) -> None:
    for name in aside.names():
        if name != JOURNAL:
            move(aside, name, home, name)
    if partial and not partial.found(JOURNAL):
        move(aside, JOURNAL, partial, JOURNAL)
    else:
        aside.unlink(JOURNAL)


def _said(aside: Folder) -> Mapping[str, Any]:
    """By the journal, what was to get the output's name."""
    lines = read_lines(aside.read(JOURNAL, MOST_BYTES).splitlines())
    return next((line for line in reversed(lines) if "publishes" in line), {})
