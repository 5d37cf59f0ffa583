"""Where an output may go."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from gatenorm_stream.checkpoint.source import Source
from gatenorm_stream.errors import OutputError
from gatenorm_stream.layout import Layout
from gatenorm_stream.record import RECORD

SPARE_BYTES = 16 << 20
"""Asked of the disk beyond what is written: file system overhead, model card, gatenorm.json."""


def check_place(source: Source, out: Path, *, force: bool = False) -> None:
    """Raises OutputError if `out` is no place for an output: taken, not writable, or in the way of the source."""
    try:
        target = out.resolve()
    except RuntimeError as error:
        raise OutputError(f"{out} leads through links in a circle; choose another place for --out") from error
    if source.directory:
        home = source.directory.resolve()
        if target == home or target.is_relative_to(home):
            raise OutputError(f"{out} is inside the source {home}; choose a directory outside it")
        if home.is_relative_to(target):
            raise OutputError(f"{out} contains the source {home}; choose another directory")
    if out.is_symlink() or (out.exists() and not out.is_dir()):
        raise OutputError(f"{out} exists and is not a directory; choose another name")
    if out.exists() and any(out.iterdir()):
        if not force:
            raise OutputError(f"{out} exists; choose another directory, or --force to replace it")
        if not (out / RECORD).is_file():
            raise OutputError(
                f"{out} exists and was not written by gatenorm-stream (it has no {RECORD}), so --force does "
                "not replace it; choose another directory, or delete it yourself"
            )
    parent = _existing_parent(target)
    if not os.access(parent, os.W_OK | os.X_OK):
        raise OutputError(f"{parent} is not writable; choose another place for --out")


def check_space(layout: Layout, out: Path) -> None:
    """Raises OutputError if the disk has no room for the output."""
    parent = _existing_parent(out.resolve())
    free, needed = shutil.disk_usage(parent).free, layout.size + SPARE_BYTES
    if free < needed:
        raise OutputError(
            f"{parent} has {free / 1e9:.2f} GB free, the output needs {needed / 1e9:.2f} GB; free some space, or "
            "choose another place for --out"
        )


def _existing_parent(path: Path) -> Path:
    return next(p for p in path.parents if p.is_dir())
