"""Writes an output. The only module that writes.

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
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import CancelledError, ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import asdict
from io import FileIO
from pathlib import Path
from threading import Event, Lock
from typing import Any, TypeAlias

from gatenorm_stream.checkpoint.local import LocalFile
from gatenorm_stream.checkpoint.ranges import ByteRange
from gatenorm_stream.errors import CheckpointError, OutputError, VerificationError
from gatenorm_stream.families import Model
from gatenorm_stream.layout import Copied, Layout, Piece, Zeros
from gatenorm_stream.plans import Plan
from gatenorm_stream.record import RECORD, FileDigest, render_record
from gatenorm_stream.scoring import Progress, available_threads

_Advance: TypeAlias = Callable[[int], None]

JOURNAL = ".gatenorm-journal"
CHUNK = 8 << 20
SPARE_BYTES = 16 << 20
"""Asked of the disk beyond what is written: file system overhead, model card, gatenorm.json."""


def check_target(layout: Layout, model: Model, out: Path, *, force: bool = False) -> None:
    """Raises OutputError for everything about `out` that can be known before the first byte is written."""
    source, target = model.checkpoint.source.root.resolve(), out.resolve()
    if target == source or target.is_relative_to(source):
        raise OutputError(f"{out} is inside the source {source}; choose a directory outside it")
    if source.is_relative_to(target):
        raise OutputError(f"{out} contains the source {source}; choose another directory")
    if out.is_symlink() or (out.exists() and not out.is_dir()):
        raise OutputError(f"{out} exists and is not a directory; choose another name")
    if out.exists() and any(out.iterdir()):
        if not force:
            raise OutputError(f"{out} exists; choose another directory, or --force to replace it")
        if not (out / RECORD).is_file():
            raise OutputError(
                f"{out} exists and was not written by gatenorm-stream (it has no {RECORD}), so --force does "
                "not replace it; choose another directory, or delete it yourself"
            )
    home = _existing_parent(target)
    if not os.access(home, os.W_OK | os.X_OK):
        raise OutputError(f"{home} is not writable; choose another place for --out")
    free = shutil.disk_usage(home).free
    if free < layout.size + SPARE_BYTES:
        raise OutputError(
            f"{home} has {free / 1e9:.2f} GB free, the output needs {(layout.size + SPARE_BYTES) / 1e9:.2f} GB; "
            "free some space, or choose another place for --out"
        )


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
            journal = _Journal(partial, _identity(plan, layout, model), restart)
            _write_files(layout, card, partial, journal, threads or available_threads(), progress)
            record = render_record(plan, journal.finished)
            _write_text(partial / RECORD, record)
            _check_shards(layout, partial)
            journal.remove()
            _sync_directory(partial)
            _move_into_place(partial, out)
    except OSError as error:
        raise OutputError(_explain(error, out, partial)) from error


def _write_files(
    layout: Layout,
    card: Mapping[str, str],
    partial: Path,
    journal: _Journal,
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


class _Journal:
    """One line for the plan, one for each complete file; kept in the `.partial` it speaks of."""

    def __init__(self, partial: Path, identity: str, restart: bool) -> None:
        self._path = partial / JOURNAL
        self._lock = Lock()
        self.finished: dict[str, FileDigest] = {}
        lines = self._lines()
        if lines and lines[0] == {"identity": identity} and not restart:
            for line in lines[1:]:
                path = partial / line["name"]
                if path.is_file() and path.stat().st_size == line["size"]:
                    self.finished[line["name"]] = FileDigest(line["size"], line["sha256"])
            return
        content = [p for p in partial.iterdir() if p != self._path]
        if content and not restart and not (partial / RECORD).is_file():
            raise OutputError(
                f"{partial} was left by a run with another plan or source; continue that run, or start over "
                "with --restart"
            )
        for path in content:
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        _write_text(self._path, json.dumps({"identity": identity}) + "\n")

    def add(self, name: str, digest: FileDigest) -> None:
        line = json.dumps({"name": name, **asdict(digest)}) + "\n"
        with self._lock, open(self._path, "a", encoding="utf-8") as journal:
            journal.write(line)
            journal.flush()
            os.fsync(journal.fileno())
            self.finished[name] = digest

    def remove(self) -> None:
        self._path.unlink()

    def _lines(self) -> list[dict[str, Any]]:
        try:
            lines = self._path.read_text("utf-8").splitlines()
        except FileNotFoundError:
            return []
        parsed = []
        for line in lines:
            try:
                parsed.append(json.loads(line))
            except ValueError:
                break
        return parsed


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


def _write_text(path: Path, text: str) -> None:
    with open(path, "wb") as file:
        file.write(text.encode("utf-8"))
        file.flush()
        os.fsync(file.fileno())


def _move_into_place(partial: Path, out: Path) -> None:
    """An earlier output is moved aside first and deleted last, so that a crash never leaves half of either."""
    replaced = None
    if out.exists():
        replaced = out.with_name(out.name + ".replaced")
        shutil.rmtree(replaced, ignore_errors=True)
        os.rename(out, replaced)
    os.rename(partial, out)
    _sync_directory(out.parent)
    if replaced:
        shutil.rmtree(replaced)


def _sync_directory(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _existing_parent(path: Path) -> Path:
    return next(p for p in path.parents if p.is_dir())


def _explain(error: OSError, out: Path, partial: Path) -> str:
    what = error.strerror or str(error)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"the disk is full ({partial}); free some space and run the same command again, it continues there"
    return f"{out} can't be written: {what} ({error.filename or partial}); mend that and run the same command again"
