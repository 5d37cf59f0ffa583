"""Executes a layout: writes an output.

Everything goes to a sibling `OUT.partial` and is synced to disk; OUT appears by one rename, as the last act. A run
that is cut off leaves no OUT, and a `.partial` that the same command continues: a journal in it names the plan and
source it belongs to, and each file that is complete.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import CancelledError, ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from threading import Event, Lock
from typing import TypeAlias

from gatenorm_stream.checkpoint.local import LocalFile
from gatenorm_stream.checkpoint.ranges import ByteRange
from gatenorm_stream.errors import CheckpointError, OutputError, VerificationError
from gatenorm_stream.families import Model
from gatenorm_stream.journal import Journal
from gatenorm_stream.layout import Copied, Layout, Piece, Zeros
from gatenorm_stream.plans import Plan
from gatenorm_stream.record import RECORD, FileDigest, render_record
from gatenorm_stream.scoring import Progress, available_threads
from gatenorm_stream.synced import sync_directory, write_synced
from gatenorm_stream.target import check_target

_Advance: TypeAlias = Callable[[int], None]

CHUNK = 8 << 20


def write_output(
    plan: Plan,
    layout: Layout,
    model: Model,
    out: Path,
    *,
    card: Mapping[str, str],
    force: bool = False,
    restart: bool = False,
    threads: int | None = None,
    progress: Progress | None = None,
) -> None:
    """Writes `layout` and the texts of `card` to `out`, which must not exist (or `force`).

    Raises OutputError if it can't be written, CheckpointError if the source changes while it is read. Either way,
    and on any other exception, `out` is as it was before.
    """
    check_target(layout, model, out, force=force)
    partial = out.with_name(out.name + ".partial")
    try:
        partial.parent.mkdir(parents=True, exist_ok=True)
        partial.mkdir(exist_ok=True)
        with _locked(partial):
            journal = Journal(partial, _identity(plan, layout, model), restart)
            _write_files(layout, card, partial, journal, threads or available_threads(), progress)
            record = render_record(plan, journal.finished)
            write_synced(partial / RECORD, record)
            _check_shards(layout, partial)
            journal.remove()
            sync_directory(partial)
            _move_into_place(partial, out, force)
    except OSError as error:
        raise OutputError(_explain(error, out, partial)) from error


def _write_files(
    layout: Layout,
    card: Mapping[str, str],
    partial: Path,
    journal: Journal,
    threads: int,
    progress: Progress | None,
) -> None:
    pieces: dict[str, tuple[Piece | bytes, ...]] = {s.name: (s.header, *s.pieces) for s in layout.shards}
    pieces |= {name: (copied,) for name, copied in layout.copied.items()}
    pieces |= {name: (text.encode("utf-8"),) for name, text in {**layout.texts, **card}.items()}
    total = sum(len(piece) for file in pieces.values() for piece in file)
    done, lock, stop = 0, Lock(), Event()

    def advance(count: int) -> None:
        nonlocal done
        if stop.is_set():
            raise CancelledError
        with lock:
            done += count
            if progress:
                progress("writing", done, total)

    def write(name: str) -> None:
        if name in journal.finished:
            advance(journal.finished[name].size)
        else:
            journal.add(name, _write_file(partial / name, pieces[name], advance))

    with ThreadPoolExecutor(threads) as pool:
        tasks = [pool.submit(write, name) for name in pieces]
        try:
            for task in as_completed(tasks):
                task.result()
        except BaseException:
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _write_file(path: Path, pieces: tuple[Piece | bytes, ...], advance: _Advance) -> FileDigest:
    """The digest is of what was read from the source, so that a later check covers the copying too."""
    path.parent.mkdir(parents=True, exist_ok=True)
    digest, size = hashlib.sha256(), 0
    with open(path, "wb", buffering=0) as target:
        for piece in pieces:
            for chunk in _chunks(piece):
                if isinstance(chunk, bytes):
                    target.write(chunk)
                    digest.update(chunk)
                else:
                    _copy(chunk, target)
                    digest.update(chunk.file.read(chunk.range))
                    chunk.file.release(chunk.range)
                size += len(chunk)
                advance(len(chunk))
        os.fsync(target.fileno())
    for piece in pieces:
        if isinstance(piece, Copied):
            _check_unchanged(piece.file)
    return FileDigest(size, digest.hexdigest())


def _chunks(piece: Piece | bytes) -> Iterator[Copied | bytes]:
    match piece:
        case Copied(file, whole):
            yield from (Copied(file, part) for part in whole.chunks(CHUNK))
        case Zeros(count):
            yield from (bytes(len(part)) for part in ByteRange(0, count).chunks(CHUNK))
        case _:
            yield piece


def _copy(chunk: Copied, target: FileIO) -> None:
    """Lets the kernel copy where it can (a reflinking file system then copies nothing)."""
    position = chunk.range.start
    while position < chunk.range.stop:
        try:
            copied = os.copy_file_range(
                chunk.file.fileno(), target.fileno(), chunk.range.stop - position, offset_src=position
            )
        except (AttributeError, OSError) as error:
            if isinstance(error, OSError) and error.errno not in _NO_KERNEL_COPY:
                raise
            copied = target.write(chunk.file.read(ByteRange(position, chunk.range.stop)))
        if not copied:
            raise CheckpointError(f"{chunk.file.path} was cut short while it was read; restore it")
        position += copied


_NO_KERNEL_COPY = {errno.EXDEV, errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.EBADF, errno.EPERM}


def _check_unchanged(file: LocalFile) -> None:
    now = os.fstat(file.fileno())
    if (now.st_size, now.st_mtime_ns) != (file.size, file.modified_ns):
        raise CheckpointError(f"{file.path} changed while it was read; run again once nothing writes to it")


def _check_shards(layout: Layout, partial: Path) -> None:
    """Opens every shard with the safetensors package and compares the names with the layout's."""
    from safetensors import safe_open

    for shard in layout.shards:
        with safe_open(partial / shard.name, framework="numpy") as opened:
            if set(opened.keys()) != {t.name for t in shard.tensors}:
                raise VerificationError(str(partial), [f"{shard.name} does not hold the planned tensors"])


def _identity(plan: Plan, layout: Layout, model: Model) -> str:
    """Stands for the plan and the very files it is applied to."""
    digest = hashlib.sha256(json.dumps(plan.to_json(), sort_keys=True).encode("utf-8"))
    for shard in model.checkpoint.shards:
        digest.update(f"{shard.name} {shard.file.size} {shard.file.modified_ns}\n".encode())
    for layout_shard in layout.shards:
        digest.update(layout_shard.header)
    return digest.hexdigest()


@contextmanager
def _locked(partial: Path) -> Iterator[None]:
    """Keeps two runs from one `.partial`; the lock goes with the process, however it ends."""
    handle = os.open(partial, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OutputError(f"another run is writing {partial}; wait for it to end") from None
        yield
    finally:
        os.close(handle)


def _move_into_place(partial: Path, out: Path, force: bool) -> None:
    """An earlier output is moved aside first and deleted last, so that a crash never leaves half of either.

    Without `force` the rename itself refuses a directory that is not empty.
    """
    aside = None
    if force and (out / RECORD).is_file():
        aside = Path(tempfile.mkdtemp(prefix=f"{out.name}.replaced-", dir=out.parent))
        os.rename(out, aside / out.name)
    os.rename(partial, out)
    sync_directory(out.parent)
    if aside:
        shutil.rmtree(aside)


def _explain(error: OSError, out: Path, partial: Path) -> str:
    what = error.strerror or str(error)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"the disk is full ({partial}); free some space and run the same command again, it continues there"
    return f"{out} can't be written: {what} ({error.filename or partial}); mend that and run the same command again"
