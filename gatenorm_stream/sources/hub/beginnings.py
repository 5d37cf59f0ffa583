"""First bytes of files, fetched for their headers before the files have a place on this machine."""

from __future__ import annotations

from threading import Lock

from gatenorm_stream.sources.hub.spool import SpoolFile
from gatenorm_stream.sources.ranges import ByteRange

MOST = 32 << 20
"""Bytes of all files together that are held in memory; what is beyond is fetched again."""


class Beginnings:
    """By the names of files, each without a gap from its first byte on."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._held: dict[str, bytes] = {}

    def keep(self, name: str, where: ByteRange, content: memoryview) -> None:
        with self._lock:
            held = self._held.get(name, b"")
            room = MOST - sum(map(len, self._held.values()))
            if where.start <= len(held) < where.stop <= len(held) + room:
                self._held[name] = held + content[len(held) - where.start :]

    def read(self, name: str, where: ByteRange) -> memoryview | None:
        """None if not all of it is here."""
        with self._lock:
            held = self._held.get(name, b"")
        return memoryview(held)[where.start : where.stop] if where.stop <= len(held) else None

    def pour(self, name: str, spool: SpoolFile) -> None:
        """What is held goes to `spool`. Raises OutputError if the disk doesn't take it."""
        with self._lock:
            held = self._held.pop(name, b"")
        for part, present in spool.segments(ByteRange(0, len(held))):
            if not present:
                spool.write(part.start, held[part.start : part.stop])
                spool.add(part)
