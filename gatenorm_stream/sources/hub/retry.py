"""Trying again: what is worth it, how often, and how long to wait."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from concurrent.futures import CancelledError
from threading import Event
from typing import TypeAlias

from gatenorm_stream.errors import HubError

Note: TypeAlias = Callable[[str], None]
"""Shows a line to the user."""

ATTEMPTS = 6
FIRST_WAIT = 0.5
LONGEST_WAIT = 30.0
TRANSIENT_STATUS = frozenset({408, 429, 500, 502, 503, 504})


class TransientError(Exception):
    """A failure that may pass; `wait` seconds if the server said how long."""

    def __init__(self, what: str, wait: float | None = None) -> None:
        self.wait = wait
        super().__init__(what)


class UnreachableError(TransientError):
    """The Hub could not be asked at all."""


class Patience:
    """Counts failures in a row; `failed` waits, or gives up after `ATTEMPTS`. Progress starts the count anew."""

    def __init__(self, what: str, note: Note, cancelled: Event) -> None:
        self._what = what
        self._note = note
        self._cancelled = cancelled
        self._failures = 0

    def progressed(self) -> None:
        self._failures = 0

    def failed(self, error: TransientError) -> None:
        """Raises HubError if there is no patience left, CancelledError if the run was cancelled meanwhile."""
        self._failures += 1
        if self._failures >= ATTEMPTS:
            raise HubError(
                f"{self._what}: {error}, {ATTEMPTS} times in a row; check the network and run the same command "
                "again, it resumes"
            ) from error
        wait = min(FIRST_WAIT * 2 ** (self._failures - 1), LONGEST_WAIT) * random.uniform(0.8, 1.2)
        wait = wait if error.wait is None else min(error.wait, 10 * LONGEST_WAIT)
        self._note(f"{self._what}: {error}; trying again in {wait:.1f} s")
        if self._cancelled.wait(wait):
            raise CancelledError


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that a Retry-After header asks for, if it gives seconds."""
    value = headers.get("retry-after", "")
    return float(value) if value.isdigit() else None
