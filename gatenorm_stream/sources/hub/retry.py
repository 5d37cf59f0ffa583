"""Trying again: what is worth it, how often, and how long to wait."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable, Mapping
from concurrent.futures import CancelledError
from email.utils import parsedate_to_datetime
from threading import Event
from typing import TypeAlias

from gatenorm_stream.errors import HubError

Note: TypeAlias = Callable[[str], None]
"""Shows a line to the user."""

ATTEMPTS = 6
LEAST_PROGRESS = 16 << 10
"""Bytes of an attempt: about the least that the least rate brings before it is looked at."""
FIRST_WAIT = 0.5
FIRST_TIME = 1e9
"""A larger number is no number of seconds to wait, but a Unix time."""
LONGEST_WAIT = 30.0
LONGEST_TOLD = 900.0
"""Seconds of waiting as a server asks, one after the other without progress; the Hub's windows are of 300."""
LIMITED_STATUS = frozenset({429, 503})
TRANSIENT_STATUS = frozenset({408, 429, 500, 502, 503, 504})


class TransientError(Exception):
    """A failure that may pass; `wait` seconds if the server said how long."""

    def __init__(self, what: str, wait: float | None = None) -> None:
        self.wait = wait
        super().__init__(what)


class SlowError(TransientError):
    """Bytes came, but so few that it would never end: that is no progress."""


class UnreachableError(TransientError):
    """The Hub could not be asked at all."""


class Patience:
    """Counts failures in a row; `failed` waits, or gives up after `ATTEMPTS`. Progress starts the count anew.

    Answers that are too slow are counted by themselves, since some bytes of each did come.

    Where the server says how long to wait, that is done, and not counted but by its length.
    """

    def __init__(self, what: str, note: Note, cancelled: Event) -> None:
        self._what = what
        self._note = note
        self._cancelled = cancelled
        self._failures = self._slow = 0
        self._told, self._came = 0.0, 0

    def progressed(self, count: int) -> None:
        """So many bytes came. One of each attempt would never end, and is no progress."""
        self._came += count
        if self._came >= LEAST_PROGRESS:
            self._failures, self._told = 0, 0.0

    def failed(self, error: TransientError) -> None:
        """Raises HubError if there is no patience left, CancelledError if the run was cancelled meanwhile."""
        told, self._came = error.wait or 0.0, 0
        self._told += told
        if self._told > LONGEST_TOLD:
            raise HubError(
                f"{self._what}: {error} and asks to wait {told:.0f} s, {self._told:.0f} s in all; run the same "
                "command again then, it resumes; a token (`hf auth login`) has higher limits"
            ) from error
        self._failures += told < 1
        self._slow += isinstance(error, SlowError)
        if max(self._failures, self._slow) >= ATTEMPTS:
            raise HubError(
                f"{self._what}: {error}, {ATTEMPTS} times in a row; check the network and run the same command "
                "again, it resumes"
            ) from error
        wait = min(FIRST_WAIT * 2 ** (self._failures - 1), LONGEST_WAIT) * random.uniform(0.8, 1.2)
        wait = wait if error.wait is None else told + random.uniform(0, 0.2) * (told > 0)
        self._note(f"{self._what}: {error}; trying again in {wait:.1f} s{', as it asks' if told else ''}")
        if self._cancelled.wait(wait):
            raise CancelledError


def wait_told(status: int, headers: Mapping[str, str]) -> float | None:
    """Seconds that an answer asks to wait; None if it says nothing. `headers` are found by lower-case names.

    Retry-After counts as seconds or as a date (RFC 9110). Where requests are limited, so do the spellings of the
    drafts on RateLimit headers: `"api";r=0;t=40`, `limit=5, remaining=0, reset=40`, RateLimit-Reset with its
    older names, whose large numbers are times.
    """
    asked = _seconds(headers.get("retry-after", ""))
    if asked is None and status in LIMITED_STATUS:
        resets = [_seconds(headers.get(name, "")) for name in RESETS]
        asked = next((s for s in (_limit_over(headers.get("ratelimit", "")), *resets) if s is not None), None)
    return asked


RESETS = ("ratelimit-reset", "x-ratelimit-reset", "x-rate-limit-reset", "x-ratelimit-reset-requests")
_LEFT = re.compile(r"\b(?:r|remaining)\s*=\s*(\d{1,12})", re.ASCII)
_UNTIL = re.compile(r"\b(?:t|reset)\s*=\s*(\d{1,12})", re.ASCII)


def _seconds(value: str) -> float | None:
    """From now on: a number of them, a Unix time or a date."""
    value = value.strip().removesuffix("s")
    if re.fullmatch(r"\d{1,12}(\.\d{1,6})?", value, re.ASCII):
        number = float(value)
        return max(number - time.time(), 0.0) if number > FIRST_TIME else number
    try:
        return max(parsedate_to_datetime(value).timestamp() - time.time(), 0.0)
    except (ValueError, OverflowError):
        return None


def _limit_over(value: str) -> float | None:
    """The longest reset of the policies that have nothing left, or don't say what they have left."""
    older = "reset" in value and "limit" in value
    policies = [value] if older else value.split(",")
    over = [policy for policy in policies if not (left := _LEFT.search(policy)) or int(left[1]) == 0]
    return max((float(until[1]) for policy in over if (until := _UNTIL.search(policy))), default=None)
