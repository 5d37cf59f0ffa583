"""Renames that replace nothing, and the exchange of two names in one step.

Python has neither. The C library is asked by `renameat2` (Linux) or `renameatx_np` (macOS, untested), and the Linux
kernel itself where the library, such as an older musl, has no such function.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import stat
import sys
from contextlib import suppress

from gatenorm_stream.disk import UNSUPPORTED
from gatenorm_stream.folder import Folder

FUNCTION, NOREPLACE, EXCHANGE = ("renameatx_np", 4, 2) if sys.platform == "darwin" else ("renameat2", 1, 2)
NUMBERS = {"x86_64": 316, "aarch64": 276}
"""Of renameat2 among the calls of the Linux kernel."""


def move(source: Folder, name: str, destination: Folder, new: str) -> None:
    """Renames, and replaces nothing but an empty directory: told in the same act where kernel and file system can,
    else looked for just before. Raises FileExistsError, OSError.
    """
    if (found := destination.found(new)) and stat.S_ISDIR(found.st_mode):
        with suppress(OSError):
            destination.rmdir(new)
    if not _renamed(source, name, destination, new, NOREPLACE):
        if destination.found(new):
            raise FileExistsError(errno.EEXIST, "it was made in the meantime", str(destination.path / new))
        try:
            os.rename(name, new, src_dir_fd=source.handle, dst_dir_fd=destination.handle)
        except OSError as error:
            raise type(error)(error.errno, error.strerror, str(destination.path / new)) from error


def exchange(folder: Folder, one: str, other_folder: Folder, other: str) -> bool:
    """Each of two names stands for what the other did, at no moment for nothing. False, and nothing is
    done, where kernel or file system can't. Raises OSError, also if one of them is not there.
    """
    return _renamed(folder, one, other_folder, other, EXCHANGE)


def _renamed(source: Folder, name: str, destination: Folder, new: str, how: int) -> bool:
    arguments = source.handle, os.fsencode(name), destination.handle, os.fsencode(new), how
    library = ctypes.CDLL(None, use_errno=True)
    if call := getattr(library, FUNCTION, None):
        failed = call(*arguments)
    elif sys.platform == "linux" and platform.machine() in NUMBERS:
        failed = library.syscall(ctypes.c_long(NUMBERS[platform.machine()]), *arguments)
    else:
        return False
    if not failed:
        return True
    code = ctypes.get_errno()
    if code in UNSUPPORTED:
        return False
    raise OSError(code, os.strerror(code), str(destination.path / new))
