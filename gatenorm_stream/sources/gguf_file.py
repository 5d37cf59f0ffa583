"""A GGUF file on this machine, told by how it begins: the names of Ollama's blobs are digests."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from gatenorm_stream.errors import CheckpointError
from gatenorm_stream.names import SPLIT, SUFFIX, split_names
from gatenorm_stream.sources.local import LocalSource

MAGIC = b"GGUF"


def names_gguf(path: Path) -> bool:
    """Whether `path` is meant as a GGUF file: it is a regular file that begins as one, or has the name of one."""
    if path.is_dir():
        return False
    return path.suffix.lower() == SUFFIX or _begins_as_gguf(path)


def open_gguf_file(path: Path) -> LocalSource:
    """With all files that it was split into. A link to one file is followed, wherever it leads: the user named it.

    Raises CheckpointError if it is not there.
    """
    if not path.exists():
        raise CheckpointError(f"{path} is not there; give a GGUF file, or the directory of a checkpoint")
    file = path if SPLIT.fullmatch(path.name) else path.resolve()
    return LocalSource(file.parent, title=str(path), gguf=split_names(file.name))


def _begins_as_gguf(path: Path) -> bool:
    """False for what can't be read: opening it says why."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            return False
        with open(path, "rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except (OSError, ValueError):
        return False
