"""`OUT.partial`: where an output grows, held by one run at a time."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gatenorm_stream.errors import OutputError

SPOOL = ".gatenorm-spool"
"""The folder in it that keeps what was fetched before it was known which bytes stay."""


@contextmanager
def open_partial(out: Path) -> Iterator[Path]:
    """The directory, locked; the lock goes with the process, however it ends. Raises OutputError."""
    partial = out.with_name(out.name + ".partial")
    try:
        partial.mkdir(parents=True, exist_ok=True)
        handle = os.open(partial, os.O_RDONLY)
    except OSError as error:
        raise OutputError(f"{partial} can't be written: {error.strerror}; choose another --out") from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield partial
    except BlockingIOError:
        raise OutputError(f"another run is writing {partial}; wait for it to end") from None
    finally:
        os.close(handle)
