"""One file of an output is filled: bytes are copied by the kernel where they are local, fetched ahead where not.

The digest is of what was read from the source, so that a later check covers the copying too.
"""

from __future__ import annotations

import errno
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import TypeAlias

from gatenorm_stream.checkpoint.ranges import ByteRange
from gatenorm_stream.checkpoint.source import File
from gatenorm_stream.errors import CheckpointError
from gatenorm_stream.journal import Journal
from gatenorm_stream.layout import Copied, Interleaved, Piece, Zeros
from gatenorm_stream.record import MarkedDigest
from gatenorm_stream.synced import boot_id

CHUNK = 8 << 20
REQUEST = 4 << 20
"""Bytes that one request for remote bytes asks for."""
SYNC_BYTES = 64 << 20
"""After so many fetched bytes they are made safe from a loss of power; from a killed process, all are."""


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


class DamagedSpoolError(CheckpointError):
    """Bytes that were kept from scoring may be damaged, and then scores and plan are too."""


Chunk: TypeAlias = bytes | Local | Remote | Interleaved
Pieces: TypeAlias = tuple[Piece | bytes, ...]
Advance: TypeAlias = Callable[[int, str], None]


def chunks(pieces: Pieces, start: int) -> Iterator[Chunk]:
    """The bytes from `start` on, in portions of at most CHUNK."""
    for piece in pieces:
        skipped = min(start, len(piece))
        start -= skipped
        match piece:
            case Copied(file, whole):
                for segment, descriptor in file.segments(whole.part(skipped, len(whole))):
                    for part in segment.chunks(REQUEST if descriptor is None else CHUNK):
                        yield Remote(file, part) if descriptor is None else Local(file, part, descriptor)
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


@dataclass(frozen=True)
class Filling:
    """A file of an output; `places` are those at which its digest is marked, `start` how much of it is there."""

    name: str
    pieces: Pieces
    places: Sequence[int] = ()
    start: int = 0


def fill(folder: Path, filling: Filling, journal: Journal, readahead: Readahead, advance: Advance) -> None:
    """Writes the file in `folder` from byte `start` on and enters it in the journal.

    Raises OSError, CheckpointError (DamagedSpoolError), and what `advance` raises to stop it.
    """
    name, start = filling.name, filling.start
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    digest, size, synced = MarkedDigest(filling.places), start, start
    with open(_opened(path), "r+b", buffering=0) as target:
        for part in ByteRange(0, start).chunks(CHUNK):
            digest.update(_reread(target, part))
        target.truncate(start)
        target.seek(start)
        advance(start, name)
        for chunk in chunks(filling.pieces, start):
            match chunk:
                case Local(file, where, _):
                    _copy(chunk, target)
                    digest.update(file.read(where))
                case Remote():
                    data = readahead.take(chunk)
                    _write_all(target, data)
                    digest.update(data)
                case _:
                    data = memoryview(chunk.read() if isinstance(chunk, Interleaved) else chunk)
                    _write_all(target, data)
                    digest.update(data)
            size += len(chunk)
            advance(len(chunk), name)
            if isinstance(chunk, Remote):
                boot = boot_id()
                if boot is None or size - synced >= SYNC_BYTES:
                    os.fdatasync(target.fileno())
                    synced, boot = size, None
                journal.add_part(name, size, boot)
        os.fsync(target.fileno())
    result = digest.result()
    _check_whole(path, filling.pieces, result.sha256)
    for piece in filling.pieces:
        if isinstance(piece, Copied):
            piece.file.check_unchanged()
    journal.add(name, result)


def _opened(path: Path) -> int:
    """A link that someone put there is not followed."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)


def _reread(target: FileIO, part: ByteRange) -> bytes:
    data = os.pread(target.fileno(), len(part), part.start)
    if len(data) < len(part):
        raise OSError(errno.EIO, "it was cut short while it was read", target.name)
    return data


def _check_whole(path: Path, pieces: Pieces, sha256: str) -> None:
    """Where a file was taken whole and its source vouches for a digest, it must be that."""
    for piece in pieces:
        if isinstance(piece, Copied) and len(piece) == piece.file.size and piece.file.sha256 not in (None, sha256):
            path.unlink()
            damaged = f"{piece.file.where} came damaged: its sha256 is not the Hub's"
            if any(descriptor is not None for _, descriptor in piece.file.segments(piece.range)):
                raise DamagedSpoolError(f"{damaged}; run the same command again, it starts over")
            raise CheckpointError(f"{damaged}; run the same command again, it fetches that file anew")


def _write_all(target: FileIO, data: memoryview) -> None:
    while data:
        data = data[target.write(data) :]


def _copy(chunk: Local, target: FileIO) -> None:
    """Lets the kernel copy where it can (a reflinking file system then copies nothing)."""
    position = chunk.range.start
    while position < chunk.range.stop:
        try:
            copied = os.copy_file_range(
                chunk.descriptor, target.fileno(), chunk.range.stop - position, offset_src=position
            )
        except (AttributeError, OSError) as error:
            if isinstance(error, OSError) and error.errno not in _NO_KERNEL_COPY:
                raise
            copied = target.write(chunk.file.read(ByteRange(position, chunk.range.stop)))
        if not copied:
            raise CheckpointError(f"{chunk.file.where} was cut short while it was read; restore it")
        position += copied


_NO_KERNEL_COPY = {errno.EXDEV, errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.EBADF, errno.EPERM}
