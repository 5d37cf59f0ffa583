"""Whether copies of a file take room of their own: btrfs, XFS and the like can let two files share blocks."""

from __future__ import annotations

import fcntl
import os
import struct
from pathlib import Path

FICLONERANGE = 0x4020940D
"""Of Linux (ioctl_ficlonerange(2)): source descriptor, its offset, length or 0 for all, target offset."""


def shares_blocks(file: Path, folder: Path) -> bool:
    """Tried on a file in `folder` that has no name and goes at once."""
    try:
        source = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        target = os.open(folder, os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o600)
        try:
            fcntl.ioctl(target, FICLONERANGE, struct.pack("=qQQQ", source, 0, 0, 0))
        finally:
            os.close(target)
    except (OSError, AttributeError):
        return False
    finally:
        os.close(source)
    return True
