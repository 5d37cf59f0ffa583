"""Where an output may go."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from gatenorm_stream.errors import OutputError
from gatenorm_stream.families import Model
from gatenorm_stream.layout import Layout
from gatenorm_stream.record import RECORD

SPARE_BYTES = 16 << 20
"""Asked of the disk beyond what is written: file system overhead, model card, gatenorm.json."""


def check_target(layout: Layout, model: Model, out: Path, *, force: bool = False) -> None:
    """Raises OutputError for everything about `out` that can be known before the first byte is written."""
    source, target = model.checkpoint.source.root.resolve(), out.resolve()
    if target == source or target.is_relative_to(source):
        raise OutputError(f"{out} is inside the source {source}; choose a directory outside it")
    if source.is_relative_to(target):
        raise OutputError(f"{out} contains the source {source}; choose another directory")
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
    home = _existing_parent(target)
    if not os.access(home, os.W_OK | os.X_OK):
        raise OutputError(f"{home} is not writable; choose another place for --out")
    free = shutil.disk_usage(home).free
    if free < layout.size + SPARE_BYTES:
        raise OutputError(
            f"{home} has {free / 1e9:.2f} GB free, the output needs {(layout.size + SPARE_BYTES) / 1e9:.2f} GB; "
            "free some space, or choose another place for --out"
        )


def _existing_parent(path: Path) -> Path:
    return next(p for p in path.parents if p.is_dir())
