"""The command as the user started it, so that what is printed to be typed next runs as it stands."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path

NAME = "gatenorm-stream"
MODULE = "gatenorm_stream"
ZIPPED = (".pyz", ".zip")


def started_as() -> str:
    """`gatenorm-stream` where that is on the PATH; else a path to it, `python -m`, or a zipapp."""
    words = sys.orig_argv[: len(sys.orig_argv) - len(sys.argv[1:])]
    if words[-2:] == ["-m", MODULE]:
        return shlex.join([_python(), "-m", MODULE])
    script = words[-1] if words else ""
    if script.lower().endswith(ZIPPED):
        return shlex.join([_python(), script])
    if Path(script).stem != NAME or _is_found(NAME, script):
        return NAME
    return shlex.quote(script)


def next_command(*words: str) -> str:
    return f"{started_as()} {shlex.join(words)}"


def _python() -> str:
    names = ("python", "python3")
    return next((name for name in names if _is_found(name, sys.executable)), sys.executable)


def _is_found(name: str, path: str) -> bool:
    """Whether `name` alone starts `path`. Of a venv's python the target of its link is another program."""
    found = shutil.which(name)
    return found is not None and os.path.abspath(found) == os.path.abspath(path)
