"""One file of an output is filled: bytes are copied by the kernel where they are local, fetched ahead where not.

The digest is of what was read from the source, so that a later check covers the copying too.
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import ParamSpec, TypeAlias

from gatenorm_stream.disk import UNSUPPORTED, boot_id, sync_file
from gatenorm_stream.errors import CheckpointError
from gatenorm_stream.folder import Folder
from gatenorm_stream.planning.layout import Copied, Interleaved
from gatenorm_stream.sources.pieces import memory_for_pieces, pieces
from gatenorm_stream.sources.ranges import ByteRange
from gatenorm_stream.sources.source import File
from gatenorm_stream.writing.chunks import CHUNK, Local, Pieces, Readahead, Remote, chunks
from gatenorm_stream.writing.journal import Journal
from gatenorm_stream.writing.record import FileDigest, MarkedDigest

SYNC_BYTES = 64 << 20
"""After so many bytes they are sent to the disk. Fetched ones are safe from a loss of power then; from a killed
process, all are."""
BEHIND = 8
"""Chunks that the digest may be behind the writing."""

Advance: TypeAlias = Callable[[int, str], None]
P = ParamSpec("P")


class DamagedSpoolError(CheckpointError):
    """Bytes that were kept from scoring may be damaged, and then scores and plan are too."""


@dataclass(frozen=True)
class Filling:
    """A file of an output. At the bytes `marked_at` its digest is marked; `start` is how much of it is there."""

    name: str
    pieces: Pieces
    marked_at: Sequence[int] = ()
    start: int = 0


class Follower:
    """Does what is to follow the writing of a chunk (its digest, or sending it to the disk) in a thread of its own,
    in order. The two have a thread each, since one needs the processor and the other the disk.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1)
        self._pending: deque[Future[None]] = deque()

    def __enter__(self) -> Follower:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def then(self, act: Callable[P, None], *args: P.args, **kwargs: P.kwargs) -> None:
        """Raises what an earlier act raised."""
        if len(self._pending) >= BEHIND:
            self._pending.popleft().result()
        self._pending.append(self._pool.submit(act, *args, **kwargs))

    def wait(self) -> None:
        while self._pending:
            self._pending.popleft().result()


def fill(folder: Folder, filling: Filling, journal: Journal, readahead: Readahead, advance: Advance) -> None:
    """Writes the file in `folder` from byte `start` on and enters it in the journal.

    Raises OSError, CheckpointError (DamagedSpoolError), and what `advance` raises to stop it.
    """
    name, start = filling.name, filling.start
    path = folder.path / name
    digest, size, synced = Digest(filling), start, start
    opened = folder.open(name, os.O_RDWR | os.O_CREAT)
    with open(opened, "r+b", buffering=0) as output, Follower() as follower, Follower() as syncing:
        if journal.unsynced(name):
            sync_file(output.fileno(), path, data_only=True)
        for part in ByteRange(0, start).chunks(CHUNK):
            digest.update(_reread(output, part))
        if output.seek(0, os.SEEK_END) > start:
            _cut(output, start, sum(map(len, filling.pieces)))
        output.seek(start)
        advance(start, name)
        for chunk in chunks(filling.pieces, start):
            match chunk:
                case Local(file, where, _):
                    _copy(chunk, output)
                    follower.then(digest.read, file, where)
                case Remote():
                    data = readahead.take(chunk)
                    _write_all(output, data)
                    follower.then(digest.update, data)
                case _:
                    data = memoryview(chunk.read() if isinstance(chunk, Interleaved) else chunk)
                    _write_all(output, data)
                    follower.then(digest.update, data)
            size += len(chunk)
            advance(len(chunk), name)
            due = size - synced >= SYNC_BYTES
            if isinstance(chunk, Remote):
                boot = boot_id()
                if boot is None or due:
                    sync_file(output.fileno(), path, data_only=True)
                    synced, boot = size, None
                journal.add_part(name, size, boot)
            elif due:
                syncing.then(_sync_data, output.fileno(), path)
                synced = size
        follower.wait()
        syncing.wait()
        sync_file(output.fileno(), path)
        found = os.fstat(output.fileno())
    try:
        digest.check()
    except CheckpointError:
        folder.unlink(name)
        raise
    for piece in filling.pieces:
        if isinstance(piece, Copied):
            piece.file.check_unchanged()
    journal.add(name, digest.result(), found)


class Digest:
    """Of what a file is filled with; also the one that the source vouches for, if the file is taken whole."""

    def __init__(self, filling: Filling) -> None:
        self._own = MarkedDigest(filling.marked_at)
        self._memory = memory_for_pieces()
        self._whole = next((p for p in filling.pieces if isinstance(p, Copied) and len(p) == p.file.size), None)
        vouched = self._whole and self._whole.file.sha256
        self._vouched = hashlib.sha256() if vouched else None

    def update(self, data: bytes | memoryview) -> None:
        self._own.update(data)
        if self._vouched:
            self._vouched.update(data)

    def read(self, file: File, where: ByteRange) -> None:
        for piece in pieces(file, where, self._memory):
            self.update(piece)

    def result(self) -> FileDigest:
        return self._own.result()

    def check(self) -> None:
        """Raises CheckpointError (DamagedSpoolError) if what was read is not what is vouched for."""
        piece = self._whole
        if not piece or not self._vouched or self._vouched.hexdigest() == piece.file.sha256:
            return
        if piece.file.path:
            raise CheckpointError(
                f"{piece.file.title} is damaged: its sha256 is not the Hub's; delete it from the cache"
            )
        damaged = f"{piece.file.title} came damaged: its sha256 is not the Hub's"
        if any(descriptor is not None for _, descriptor in piece.file.segments(piece.range)):
            raise DamagedSpoolError(f"{damaged}; run the same command again, it starts over")
        raise CheckpointError(f"{damaged}; run the same command again, it fetches that file again")


def _reread(output: FileIO, part: ByteRange) -> bytes:
    data = os.pread(output.fileno(), len(part), part.start)
    if len(data) < len(part):
        raise OSError(errno.EIO, "it was cut short while it was read", output.name)
    return data


def _write_all(output: FileIO, data: memoryview) -> None:
    while data:
        written = output.write(data)
        if not written:
            raise OSError(errno.EIO, "nothing of it is taken", output.name)
        data = data[written:]


def _copy(chunk: Local, output: FileIO) -> None:
    """Lets the kernel copy where it can (a reflinking file system then copies nothing).

    Where it can't, or copies nothing, whatever it says (CIFS gives EIO), the bytes are read and written: what is
    wrong with the source or the output shows there, each under its own name.
    """
    position = chunk.range.start
    while position < chunk.range.stop:
        copied = 0
        with suppress(AttributeError, OSError):
            copied = os.copy_file_range(
                chunk.descriptor, output.fileno(), chunk.range.stop - position, offset_src=position
            )
        if not copied:
            data = chunk.file.read(ByteRange(position, chunk.range.stop))
            _write_all(output, data)
            copied = len(data)
        position += copied


def _cut(output: FileIO, size: int, most: int) -> None:
    """What stands behind `size` will be written over, so that a file system that can't cut need not."""
    try:
        output.truncate(size)
    except OSError as error:
        if error.errno not in UNSUPPORTED or os.fstat(output.fileno()).st_size > most:
            raise


def _sync_data(descriptor: int, path: Path) -> None:
    sync_file(descriptor, path, data_only=True)
