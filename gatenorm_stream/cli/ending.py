"""Ctrl-C and SIGTERM end the command within two seconds, whatever it is in the middle of.

They come as exceptions first, so that what is open is closed. But Python raises those between two of its own steps
in the main thread, and at its end waits for all threads: a large matrix product, an address that does not answer or
a slow disk would hold it. So a thread, which the system wakes at once, ends the process if it is still there after
`GRACE`. To the files, that is a kill, and a kill loses nothing.
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from threading import Event, Lock, Thread
from typing import NoReturn

GRACE = 0.7
CODES: Mapping[int, int] = {signal.SIGINT: 130, signal.SIGTERM: 143}
_CLEAN = b"\r\x1b[J\x1b[?25h"
"""On a terminal: a bar goes, the cursor comes back."""


class Terminated(KeyboardInterrupt):
    """SIGTERM."""


class LastLine:
    """What is said at the end, once, whoever comes first."""

    def __init__(self, text: Callable[[int], str]) -> None:
        self._text = text
        self._lock = Lock()

    def of(self, number: int) -> str | None:
        """None if it was given out before."""
        return self._text(number) if self._lock.acquire(blocking=False) else None


@contextmanager
def ended_by_signals(last: LastLine) -> Iterator[None]:
    """SIGINT raises KeyboardInterrupt and SIGTERM Terminated, the first of them alone.

    A signal that is ignored, as by `nohup` and for a shell's background jobs, stays so.
    """
    handled = [number for number in CODES if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.getsignal(number) for number in handled}
    ending = Event()

    def end(number: int, _: object) -> NoReturn:
        ending.set()
        for each in handled:
            signal.signal(each, signal.SIG_IGN)
        raise Terminated if number == signal.SIGTERM else KeyboardInterrupt

    waking, woken = os.pipe()
    fcntl.fcntl(woken, fcntl.F_SETFL, os.O_NONBLOCK)
    watch = Thread(target=_watch, args=(waking, last), daemon=True)
    watch.start()
    signal.set_wakeup_fd(woken, warn_on_full_buffer=False)
    for number in handled:
        signal.signal(number, end)
    try:
        yield
    finally:
        if not ending.is_set():
            for number, handler in before.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(-1)
            os.close(woken)
            watch.join()


def _watch(waking: int, last: LastLine) -> None:
    while came := os.read(waking, 1):
        if came[0] in CODES:
            time.sleep(GRACE)
            _end(came[0], last)
    os.close(waking)


def _end(number: int, last: LastLine) -> NoReturn:
    """By system calls alone: other threads may hold the locks of the streams for ever, or nobody may read them."""
    with suppress(Exception):
        line = last.of(number)
        clean = _CLEAN if os.isatty(2) and os.environ.get("TERM") not in (None, "dumb", "unknown") else b""
        if line and select.select([], [2], [], 0)[1]:
            os.write(2, clean + line.encode(sys.stderr.encoding, "backslashreplace") + b"\n")
    os._exit(CODES[number])
