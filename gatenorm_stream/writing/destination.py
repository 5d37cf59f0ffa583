"""Where an output may go."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from gatenorm_stream.checkpoint.tensors import Checkpoint
from gatenorm_stream.disk import check_free, shares_blocks
from gatenorm_stream.errors import OutputError
from gatenorm_stream.folder import Folder, open_folder
from gatenorm_stream.names import RECORD, SUFFIX
from gatenorm_stream.planning.layout import Layout
from gatenorm_stream.sources.source import Kind, Source
from gatenorm_stream.writing.partial import SPOOL, partial_path
from gatenorm_stream.writing.publication import LONGEST_NAME
from gatenorm_stream.writing.record import MOST_FILES, beside
from gatenorm_stream.writing.replaced import check_only_ours, earlier_directory, earlier_file

SPARE_BYTES = 16 << 20
"""Asked of the disk beyond what is written: file system overhead, model card, gatenorm.json."""
ELSEWHERE = "choose another place for --out"


def check_destination(source: Source, out: Path, *, force: bool = False) -> None:
    """Raises OutputError if `out` is no place for an output: taken, not writable, or in the way of the source."""
    partial_path(out)
    resolved = _resolved(out)
    if len(os.fsencode(out.name)) > LONGEST_NAME:
        raise OutputError(f"the name of {out} is too long; choose one of at most {LONGEST_NAME} bytes for --out")
    if source.kind is Kind.GGUF:
        _check_file(source, out, force)
    else:
        _check_directory(source, out, resolved, force)
    parent = _existing_parent(resolved)
    if not os.access(parent, os.W_OK | os.X_OK):
        raise OutputError(f"{parent} is not writable; choose another place for --out")
    if os.path.lexists(out) and not _may_be_renamed(out):
        raise OutputError(f"{out} belongs to another user, and may not be replaced; choose another name")


def _may_be_renamed(out: Path) -> bool:
    """By the rules of the system, which are told too late when all is written."""
    found, above = out.lstat(), out.parent.stat()
    sticky = above.st_mode & stat.S_ISVTX and os.geteuid() not in (0, found.st_uid, above.st_uid)
    shut = stat.S_ISDIR(found.st_mode) and any(out.iterdir()) and not os.access(out, os.W_OK | os.X_OK)
    return not (sticky or shut)


def _resolved(out: Path) -> Path:
    """Where `out` leads. Raises OutputError for a circle of links, which Python leaves as it is from 3.13 on."""
    circle = OutputError(f"{out} leads through links in a circle; choose another place for --out")
    try:
        resolved = out.resolve()
    except RuntimeError as error:
        raise circle from error
    if any(os.path.islink(path) for path in (resolved, *resolved.parents)):
        raise circle
    return resolved


def _check_file(source: Source, out: Path, force: bool) -> None:
    if out.suffix != SUFFIX:
        raise OutputError(f"{source.title} becomes one file; give it a name that ends in {SUFFIX}, not {out}")
    if out.is_symlink() or (out.exists() and not out.is_file()):
        raise OutputError(f"{out} exists and is not a file; choose another name")
    if source.directory and any(_same(out, source.directory / name) for name in source.gguf):
        raise OutputError(f"{out} is the source; choose another name")
    if out.exists() and not force:
        raise OutputError(f"{out} exists; choose another name, or --force to replace it")
    record, card = beside(out).values()
    there = [path for path in (record, card) if os.path.lexists(path)]
    if there and not force:
        raise OutputError(
            f"{there[0]} exists, and the {'record' if there[0] == record else 'card'} of {out} would be written "
            "there; choose another name, or --force to replace it"
        )
    if there or out.exists():
        with _open_to_list(out.parent) as home:
            check_only_ours(earlier_file(home, out, digests=False), out)


def _check_directory(source: Source, out: Path, resolved: Path, force: bool) -> None:
    if out.suffix == SUFFIX:
        raise OutputError(
            f"{source.title} is a safetensors checkpoint and becomes a directory, not {out}; convert that by "
            "llama.cpp's convert_hf_to_gguf.py"
        )
    if around := next((p for p in resolved.parents if (p / RECORD).is_file()), None):
        raise OutputError(f"{out} is inside {around}, an output of gatenorm-stream; choose a directory outside it")
    if source.directory:
        home = source.directory.resolve()
        if any(_same(path, home) for path in (resolved, *resolved.parents)):
            raise OutputError(f"{out} is inside the source {home}; choose a directory outside it")
        if home.is_relative_to(resolved):
            raise OutputError(f"{out} contains the source {home}; choose another directory")
    if out.is_symlink():
        raise OutputError(f"{out} is a link, which no output replaces; give the directory itself, or another name")
    if not out.exists():
        return
    if not out.is_dir():
        raise OutputError(f"{out} exists and is not a directory; choose another name")
    with _open_to_list(out.parent) as above, _open_to_list(out) as folder:
        if above.ends_at(folder):
            raise OutputError(f"{out} is another file system, and is not replaced; choose a directory below it")
        if not folder.names():
            return
        if not force:
            raise OutputError(f"{out} exists; choose another directory, or --force to replace it")
        check_only_ours(earlier_directory(folder, digests=False), out)


def _same(path: Path, other: Path) -> bool:
    """By what is there: a file system may know a name in other letters too, and be mounted twice."""
    with suppress(OSError):
        return os.path.samefile(path, other)
    return False


@contextmanager
def _open_to_list(folder: Path) -> Iterator[Folder]:
    try:
        with open_folder(folder) as opened:
            yield opened
    except OSError as error:
        raise OutputError(f"{folder} can't be read: {error.strerror}; choose another --out") from error


def check_files(layout: Layout) -> None:
    """Raises OutputError if it has more files than a record may list, the model card and its picture among them."""
    count = len(layout.shards) + len(layout.copied) + len(layout.texts) + 2
    if count > MOST_FILES:
        raise OutputError(
            f"the output would have {count} files, and at most {MOST_FILES} are written; merge its shards"
        )


def check_space(layout: Layout, out: Path) -> None:
    """Raises OutputError if the disk has no room for what of the output is not there yet.

    What a file system shares with the source takes no room that could be told before.
    """
    parent = _existing_parent(out.resolve())
    if not (layout.taken_from and shares_blocks(layout.taken_from, parent)):
        check_free(parent, layout.size + SPARE_BYTES - _begun(out), "the output needs", ELSEWHERE)


def check_space_to_run(checkpoint: Checkpoint, out: Path) -> None:
    """The same before all weights of a remote model are fetched. (Whether the Hub cache has room for those is asked
    there; here they count if it is on the same disk.)
    """
    parent = _existing_parent(out.resolve())
    fetched = checkpoint.unfetched_bytes if _on_disk_of_cache(parent) else 0
    needed = fetched + checkpoint.weight_bytes + SPARE_BYTES - _begun(out)
    check_free(parent, needed, "the model's weights in the Hub cache and the output need", ELSEWHERE)


def _on_disk_of_cache(folder: Path) -> bool:
    from huggingface_hub import constants

    with suppress(OSError):
        return os.stat(folder).st_dev == os.stat(_existing_parent(Path(constants.HF_HUB_CACHE, "-"))).st_dev
    return True


def _begun(out: Path) -> int:
    """Bytes of the output on the disk that an earlier run left, which this one goes on with."""
    count = 0
    for folder, subfolders, names in os.walk(partial_path(out)):
        subfolders[:] = [name for name in subfolders if name != SPOOL]
        for name in names:
            with suppress(FileNotFoundError):  # another run may be at work
                count += os.lstat(os.path.join(folder, name)).st_blocks * 512
    return count


def _existing_parent(path: Path) -> Path:
    return next(p for p in path.parents if p.is_dir())
