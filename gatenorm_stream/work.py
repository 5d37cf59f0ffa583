"""Long work: how it reports progress, and on how many threads it runs."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import contextmanager
from threading import Event, Lock
from typing import TypeAlias

Progress: TypeAlias = Callable[[str, int, int, str], None]
"""Called as progress(what, bytes done, bytes in all, file)."""


class Tally:
    """Bytes done by all threads together, each of which tells when it has done some."""

    def __init__(self, what: str, total: int, progress: Progress | None) -> None:
        self._what, self._total, self._progress = what, total, progress
        self._done, self._lock, self._stopped = 0, Lock(), Event()

    def add(self, count: int, file: str) -> None:
        """Raises CancelledError after `stop`."""
        if self._stopped.is_set():
            raise CancelledError
        with self._lock:
            self._done += count
            if self._progress:
                self._progress(self._what, self._done, self._total, file)

    def stop(self) -> None:
        self._stopped.set()


def available_threads() -> int:
    """The processors that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:
        return os.cpu_count() or 1


@contextmanager
def workers(threads: int, cancel: Callable[[], object] = lambda: None) -> Iterator[ThreadPoolExecutor]:
    """If what they are asked for is given up, by an interrupt too, `cancel` is called to end what is under way, and
    what waits is not begun.
    """
    with ThreadPoolExecutor(threads) as pool:
        try:
            yield pool
        except BaseException:
            cancel()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
