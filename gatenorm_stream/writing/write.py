"""Executes a layout: writes an output.

Everything goes to a sibling `OUT.partial` and is synced to disk; OUT appears by one rename, as the last act. A run
that is cut off leaves no OUT, and a `.partial` that the same command continues: a journal in it names the plan and
source it belongs to, and each file that is complete.
"""

from __future__ import annotations

import errno
import hashlib
import json
import stat
from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path, PurePosixPath

from gatenorm_stream.checkpoint.gguf import open_gguf
from gatenorm_stream.disk import SyncError
from gatenorm_stream.errors import CheckpointError, OutputError, VerificationError
from gatenorm_stream.families.model import Model
from gatenorm_stream.folder import Folder, open_folder
from gatenorm_stream.names import RECORD
from gatenorm_stream.planning.layout import Copied, Interleaved, Layout, Zeros
from gatenorm_stream.planning.plan import Plan
from gatenorm_stream.sources.hub.retry import Note
from gatenorm_stream.sources.local import LocalSource
from gatenorm_stream.sources.source import Kind, Source
from gatenorm_stream.work import Progress, Tally, available_threads
from gatenorm_stream.writing.chunks import Readahead, Remote, chunks
from gatenorm_stream.writing.filling import DamagedSpoolError, Filling, fill
from gatenorm_stream.writing.journal import Journal
from gatenorm_stream.writing.partial import JOURNAL, SPOOL, clear
from gatenorm_stream.writing.publication import publish_directory, publish_file
from gatenorm_stream.writing.record import render_record

UNSYNCED = (
    "the file system of {out} does not sync {what}: if the power fails soon, the output may be damaged or gone; "
    "`gatenorm-stream verify` tells"
)


def write_output(
    plan: Plan,
    layout: Layout,
    model: Model,
    out: Path,
    partial: Folder,
    *,
    card: Mapping[str, str],
    force: bool = False,
    threads: int | None = None,
    progress: Progress | None = None,
    note: Note = lambda line: None,
) -> None:
    """Writes `layout` and the texts of `card` to `partial` (from `open_partial`), and makes that `out`.

    `note` is told what the file system lacks, and what that means for the output.

    Raises OutputError if it can't be written, CheckpointError if the source changes while it is read or can't be
    read to its end. Either way, and on any other exception, `out` is as it was before.
    """
    files = fillings(layout, card)
    try:
        expected = {name: (sum(map(len, f.pieces)), len(f.marked_at)) for name, f in files.items()}
        journal = Journal(partial, _identity(plan, files, model), expected)
        _check_alone(partial, files)
        with _forgetting_unsynced(partial, journal):
            _write_files(files, model.checkpoint.source, partial, journal, threads, progress)
            model.checkpoint.source.check_unchanged()
            if not partial.write(RECORD, render_record(plan, journal.finished).encode("utf-8")):
                note(UNSYNCED.format(out=out, what="files"))
        partial.remove(SPOOL)
        check = _check_file if layout.kind is Kind.GGUF else _check_shards
        check(layout, partial.path)
        _check_alone(partial, files)
        if not partial.sync():
            note(UNSYNCED.format(out=out, what="directories"))
        if layout.kind is Kind.GGUF:
            publish_file(partial, journal, out, force, note)
            with suppress(OSError), open_folder(out.parent) as home:
                home.remove(partial.path.name)
        else:
            publish_directory(partial, journal, out, force, note)
    except DamagedSpoolError:
        clear(partial)
        raise
    except OSError as error:
        raise OutputError(_explain(error, out, partial.path)) from error


def _check_alone(partial: Folder, files: Collection[str]) -> None:
    """Raises OutputError for what someone has put there: it would become a part of the output."""
    ours = {
        JOURNAL,
        RECORD,
        SPOOL,
        *files,
        *(str(above) for name in files for above in PurePosixPath(name).parents),
    }
    for name, _ in partial.walk():
        if name not in ours and not name.startswith(f"{SPOOL}/"):
            raise OutputError(
                f"{partial.path / name} was not left by this run; move it elsewhere, then run the same command "
                "again, it resumes"
            )


@contextmanager
def _forgetting_unsynced(partial: Folder, journal: Journal) -> Iterator[None]:
    """After a failed sync, nothing that was not on the disk by then is believed by the next run."""
    try:
        yield
    except SyncError:
        journal.add_failure()
        with suppress(OSError, OutputError):
            partial.remove(SPOOL)
        raise


def fillings(layout: Layout, card: Mapping[str, str]) -> dict[str, Filling]:
    """The files of an output but its gatenorm.json."""
    shards = (Filling(s.name, (*((s.header,) if s.header else ()), *s.pieces), s.marked_at) for s in layout.shards)
    copied = (Filling(name, (piece,)) for name, piece in layout.copied.items())
    texts = (Filling(name, (text.encode("utf-8"),)) for name, text in {**layout.texts, **card}.items())
    return {f.name: f for f in (*shards, *copied, *texts)}


def _write_files(
    files: Mapping[str, Filling],
    source: Source,
    partial: Folder,
    journal: Journal,
    threads: int | None,
    progress: Progress | None,
) -> None:
    """Local files side by side; remote ones one after the other, their chunks side by side."""
    tally = Tally("writing", sum(len(piece) for f in files.values() for piece in f.pieces), progress)
    tally.add(sum(f.size for f in journal.finished.values()), "")
    left = [replace(f, start=journal.written(f.name)) for f in files.values() if f.name not in journal.finished]
    readahead = Readahead(source.connections)
    with ThreadPoolExecutor(1 if source.remote else threads or available_threads()) as pool:
        try:
            if source.remote:
                readahead.expect(c for f in left for c in chunks(f.pieces, f.start) if isinstance(c, Remote))
            tasks = [pool.submit(fill, partial, f, journal, readahead, tally.add) for f in left]
            for task in as_completed(tasks):
                task.result()
        except BaseException:
            tally.stop()
            source.cancel()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
        finally:
            readahead.close()


def _check_shards(layout: Layout, partial: Path) -> None:
    """Opens every shard with the safetensors package and compares the names with the layout's."""
    from safetensors import SafetensorError, safe_open

    for shard in layout.shards:
        path = partial / shard.name
        if not stat.S_ISREG(path.lstat().st_mode):
            raise VerificationError(str(partial), [f"{shard.name} is no regular file any more"])
        try:
            with safe_open(path, framework="numpy") as opened:
                held = set(opened.keys())
        except SafetensorError as error:
            raise VerificationError(str(partial), [f"{shard.name} came out damaged: {error}"]) from error
        if held != {t.name for t in shard.tensors}:
            raise VerificationError(str(partial), [f"{shard.name} does not hold the planned tensors"])


def _check_file(layout: Layout, partial: Path) -> None:
    """Reads the header of the GGUF file anew and compares the names with the layout's."""
    (shard,) = layout.shards
    try:
        with open_gguf(LocalSource(partial, gguf=(shard.name,))) as written:
            held = set(written.tensors)
    except CheckpointError as error:
        raise VerificationError(str(partial), [f"{shard.name} came out damaged: {error}"]) from error
    if held != {t.name for t in shard.tensors}:
        raise VerificationError(str(partial), [f"{shard.name} does not hold the planned tensors"])


def _identity(plan: Plan, files: Mapping[str, Filling], model: Model) -> str:
    """Stands for the plan, the very files it is applied to, and what it makes of them."""
    digest = hashlib.sha256(json.dumps(plan.to_json(), sort_keys=True).encode("utf-8"))
    for shard in model.checkpoint.shards:
        digest.update(f"{shard.name} {shard.file.state}\n".encode())
    for file in files.values():
        digest.update(f"{file.name}\n".encode())
        for piece in file.pieces:
            match piece:
                case Copied(source, where):
                    digest.update(f"{source.state} {where.start} {where.stop}\n".encode())
                case Zeros(count):
                    digest.update(f"{count} zeros\n".encode())
                case Interleaved(source, where, step):
                    digest.update(f"{source.state} {where.start} {where.stop} by {step}\n".encode())
                case _:
                    digest.update(piece)
    return digest.hexdigest()


def _explain(error: OSError, out: Path, partial: Path) -> str:
    what = error.strerror or str(error)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"the disk is full ({partial}); free some space and run the same command again, it resumes"
    return f"{out} can't be written: {what} ({error.filename or partial}); fix that and run the same command again"
