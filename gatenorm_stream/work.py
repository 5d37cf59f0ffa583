"""Long work: how it reports progress, and on how many threads it runs."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeAlias

Progress: TypeAlias = Callable[[str, int, int, str], None]
"""Called as progress(what, bytes done, bytes in all, file)."""


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
