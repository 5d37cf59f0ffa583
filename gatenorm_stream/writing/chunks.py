"""What a file is filled with, in the portions in which it is copied or fetched."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeAlias

from gatenorm_stream.checkpoint.safetensors_header import BLOCK
from gatenorm_stream.planning.layout import Copied, Interleaved, Piece, Zeros
from gatenorm_stream.sources.ranges import ByteRange
from gatenorm_stream.sources.source import File

CHUNK = 8 << 20
REQUEST = 4 << 20
"""Bytes that one request for remote bytes asks for."""


@dataclass(frozen=True)
class Remote:
    """Bytes of `file` that have to be fetched."""

    file: File
    range: ByteRange

    def __len__(self) -> int:
        return len(self.range)


@dataclass(frozen=True)
class Local:
    """Bytes of `file` that `descriptor` holds at the same offsets."""

    file: File
    range: ByteRange
    descriptor: int

    def __len__(self) -> int:
        return len(self.range)


Chunk: TypeAlias = bytes | Local | Remote | Interleaved
Pieces: TypeAlias = tuple[Piece, ...]


def chunks(pieces: Pieces, start: int) -> Iterator[Chunk]:
    """The bytes from `start` on, in portions of at most CHUNK."""
    for piece in pieces:
        skipped = min(start, len(piece))
        start -= skipped
        match piece:
            case Copied(file, whole):
                for segment, descriptor in file.segments(whole.part(skipped, len(whole))):
                    if descriptor is None:
                        yield from (Remote(file, part) for part in segment.chunks(REQUEST))
                    else:
                        yield from (Local(file, part, descriptor) for part in segment.blocks(CHUNK, BLOCK))
            case Zeros(count):
                yield from (bytes(len(part)) for part in ByteRange(skipped, count).chunks(CHUNK))
            case Interleaved():
                if skipped < len(piece):  # a run never stops within one
                    yield piece
            case _:
                yield piece[skipped:]


class Readahead:
    """Fetches the remote chunks of all files in the order in which they will be taken, `connections` at once.

    At most that many chunks are in memory.
    """

    def __init__(self, connections: int) -> None:
        self._connections = connections
        self._pool = ThreadPoolExecutor(connections)
        self._coming: Iterator[Remote] = iter(())
        self._fetched: deque[tuple[Remote, Future[memoryview]]] = deque()

    def expect(self, coming: Iterable[Remote]) -> None:
        self._coming = iter(coming)
        for _ in range(self._connections):
            self._fetch_next()

    def take(self, chunk: Remote) -> memoryview:
        expected, data = self._fetched.popleft()
        assert expected == chunk
        try:
            return data.result()
        finally:
            self._fetch_next()

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)

    def _fetch_next(self) -> None:
        if (chunk := next(self._coming, None)) is not None:
            self._fetched.append((chunk, self._pool.submit(chunk.file.fetch, chunk.range)))
