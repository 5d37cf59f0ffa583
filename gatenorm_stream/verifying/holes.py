"""Files that are mostly holes: what looks like a terabyte and takes no room would be hashed for hours."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from gatenorm_stream.verifying.output import Output

MOST = 32 << 30
"""Bytes of holes in all files together: more than the zeroed attention of the largest models."""
MOST_LOOKED_AT = 10_000


def too_many_holes(output: Output) -> Iterator[str]:
    """Nothing is said of what can't be opened, or where the file system does not tell of holes."""
    found = 0
    for name in output.files:
        found += _holes(output.file(name))
        if found > MOST:
            yield (
                f"{output.called(name)} has {found} bytes of holes, with the files before it: at most {MOST} are "
                "read; copy the output again"
            )
            return


def _holes(path: Path) -> int:
    """Bytes, of the first MOST_LOOKED_AT holes."""
    try:
        size = path.stat().st_size if path.is_file() else 0
        if size <= MOST // 1000:
            return 0
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return 0
    holes = at = 0
    try:
        for _ in range(MOST_LOOKED_AT):
            start = os.lseek(descriptor, at, os.SEEK_HOLE)
            if start >= size:
                break
            try:
                at = os.lseek(descriptor, start, os.SEEK_DATA)
            except OSError:  # ENXIO: nothing but a hole up to the end
                at = size
            holes += at - start
            if at >= size:
                break
    except OSError:
        pass
    finally:
        os.close(descriptor)
    return holes
