"""Long work: how it reports progress, and on how many threads it runs."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TypeAlias

Progress: TypeAlias = Callable[[str, int, int, str], None]
"""Called as progress(what, bytes done, bytes in all, file)."""


def available_threads() -> int:
    """The processors that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:
        return os.cpu_count() or 1
