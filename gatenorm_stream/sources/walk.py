"""All files below a folder, within bounds: a stranger's folder may be deeper than any call stack."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from gatenorm_stream.errors import CheckpointError

DEEPEST = 64
MOST_ENTRIES = 50_000


def walk(root: Path, enters: Callable[[os.DirEntry[str]], bool]) -> Iterator[os.DirEntry[str]]:
    """Everything below `root`, and what stands in the folders among it that `enters` takes (links never).

    Raises CheckpointError for more than MOST_ENTRIES, folders more than DEEPEST within each other, and if `root`
    can't be listed. Another folder that can't be is taken for empty, as by os.walk.
    """
    waiting, count = [(os.fspath(root), 0)], 0
    while waiting:
        folder, depth = waiting.pop()
        try:
            with os.scandir(folder) as entries:
                found = list(entries)
        except OSError as error:
            if depth == 0:
                raise CheckpointError(
                    f"{root} can't be listed: {error.strerror}; allow yourself to read it"
                ) from error
            continue
        count += len(found)
        if count > MOST_ENTRIES or depth > DEEPEST:
            what = f"folders more than {DEEPEST} deep" if depth > DEEPEST else f"more than {MOST_ENTRIES} files"
            raise CheckpointError(f"{root} has {what}, as no model has; give the folder that holds the model alone")
        for entry in found:
            yield entry
            if not entry.is_symlink() and entry.is_dir() and enters(entry):
                waiting.append((entry.path, depth + 1))


def can_be_listed(entry: os.DirEntry[str]) -> bool:
    return os.access(entry.path, os.R_OK | os.X_OK)
