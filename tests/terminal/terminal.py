"""A terminal that programs run in, and whose screen is read as text."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import termios
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pyte

SECONDS = 30


class Terminal:
    """Runs `command` in a pseudo-terminal of that size; a context manager, which ends what still runs."""

    def __init__(
        self, command: Sequence[str], cwd: Path, columns: int, rows: int = 160, **environment: str
    ) -> None:
        self._screen = pyte.Screen(columns, rows)
        self._stream = pyte.ByteStream(self._screen)
        self._ended = False
        kept = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES", "NO_COLOR", "PS1")}
        self._pid, self._fd = pty.fork()
        if self._pid == 0:
            os.chdir(cwd)
            os.execvpe(command[0], list(command), {**kept, "TERM": "xterm-256color", **environment})
        fcntl.ioctl(self._fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)
        os.waitpid(self._pid, 0)

    def type(self, keys: str) -> None:
        os.write(self._fd, keys.encode())

    def until(self, seen: str | Callable[[str], bool]) -> str:
        """The screen, once `seen` is on it. Raises AssertionError if it does not come."""
        there = seen if callable(seen) else lambda text: seen in text
        limit = time.monotonic() + SECONDS
        while not there(self.text):
            assert time.monotonic() < limit, f"{seen} does not come:\n{self.text}"
            assert self._read() or not self._ended, f"ended without {seen}:\n{self.text}"
        return self.text

    def until_end(self) -> str:
        """The screen as the program left it."""
        limit = time.monotonic() + SECONDS
        while not self._ended:
            assert time.monotonic() < limit, f"still running:\n{self.text}"
            self._read()
        return self.text

    @property
    def text(self) -> str:
        return "\n".join(line.rstrip() for line in self._screen.display).rstrip() + "\n"

    @property
    def coloured(self) -> bool:
        """Whether anything on the screen has another colour or weight than plain text."""
        cells = (cell for line in self._screen.buffer.values() for cell in line.values())
        return any(cell.fg != "default" or cell.bg != "default" or cell.bold for cell in cells)

    def _read(self) -> bool:
        if not select.select([self._fd], [], [], 0.2)[0]:
            return True
        try:
            part = os.read(self._fd, 1 << 16)
        except OSError:  # how Linux says that the other side is closed
            part = b""
        self._ended = not part
        self._stream.feed(part)
        return bool(part)
