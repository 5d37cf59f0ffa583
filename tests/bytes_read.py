"""What this process has read, as the kernel counts it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

COUNTS = Path("/proc/self/io")
counted = pytest.mark.skipif(not COUNTS.exists(), reason="the system does not count what is read")


def bytes_read() -> Iterator[int]:
    """By this process since the count before."""
    before = 0
    while True:
        now = int(COUNTS.read_text().splitlines()[0].removeprefix("rchar: "))
        yield now - before
        before = now
