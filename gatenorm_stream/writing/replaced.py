"""What of an earlier output is ours to delete: what its record lists, by name and digest, and nothing else."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TypeAlias

from blake3 import blake3

from gatenorm_stream.checkpoint.json_text import MAX_JSON_BYTES
from gatenorm_stream.errors import OutputError, PlanError, VerificationError
from gatenorm_stream.folder import Folder
from gatenorm_stream.names import CARD, RECORD
from gatenorm_stream.writing.record import FileDigest, beside, parse_record

BLOCK = 8 << 20

Seen: TypeAlias = tuple[int, int, int, int]
"""Inode, size, times of change of content and of anything: a file with another one is another file."""


@dataclass(frozen=True)
class Earlier:
    """Of what is there, the files that the record lists, and what else there is, each with why it is not ours."""

    ours: Mapping[str, Seen]
    others: Mapping[str, str]
    folders: tuple[str, ...] = ()
    """In which the listed files lie."""
    inode: int | None = None
    """Of the directory."""


def earlier_directory(folder: Folder, *, digests: bool) -> Earlier:
    """Without `digests` only names and sizes are compared. Raises OutputError if the record can't be read."""
    files = _recorded(folder, RECORD, folder.path)
    above = {str(parent) for name in files for parent in PurePosixPath(name).parents}
    ours, others, folders = dict[str, Seen](), dict[str, str](), []
    for name, found in folder.walk():
        if stat.S_ISDIR(found.st_mode):
            if name not in above or found.st_dev != os.fstat(folder.handle).st_dev:
                others[name] = "which gatenorm-stream did not write"
            else:
                folders.append(name)
        elif name == RECORD and stat.S_ISREG(found.st_mode):
            ours[name] = seen(found)
        elif name not in files or not stat.S_ISREG(found.st_mode):
            others[name] = "which gatenorm-stream did not write"
        elif not _is(folder, name, found, files[name], digests):
            others[name] = "which was changed since it was written"
        else:
            ours[name] = seen(found)
    return Earlier(ours, others, tuple(folders), os.fstat(folder.handle).st_ino)


def earlier_file(home: Folder, out: Path, *, digests: bool) -> Earlier:
    """Of a GGUF file that is called as `out` is, its record and its card, any of which may be missing. Raises
    OutputError as `earlier_directory`.
    """
    name, (record, card) = out.name, (path.name for path in beside(out).values())
    listed = dict(_recorded(home, record, home.path / name))
    of_card = listed.pop(CARD, None)
    of_file = next(iter(listed.values())) if len(listed) == 1 else None
    found = {each: home.found(each) for each in (name, record, card)}
    for each, digest in ((name, of_file), (card, of_card)):
        there = found[each]
        if there and not (digest and _is(home, each, there, digest, digests)):
            return Earlier({}, {each: f"which is not what {record} says of it"})
    return Earlier({each: seen(what) for each, what in found.items() if what}, {})


def check_only_ours(earlier: Earlier, out: Path) -> Earlier:
    """Raises OutputError if there is anything else."""
    for name, why in earlier.others.items():
        raise OutputError(f"{out} holds {name}, {why}; move it elsewhere, then --force replaces the rest")
    return earlier


def discard(folder: Folder, earlier: Earlier) -> None:
    """Deletes what is ours and is still what was seen; the record last. What is left over stays."""
    last = [name for name in earlier.ours if "/" not in name and name.endswith(RECORD)]
    for name in (*(n for n in earlier.ours if n not in last), *reversed(earlier.folders), *last):
        with suppress(OSError, OutputError):
            if name in earlier.ours:
                _unlink_seen(folder, name, earlier.ours[name])
            else:
                _remove_empty(folder, name)


def seen(found: os.stat_result) -> Seen:
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def digest_in(folder: Folder, name: str) -> str:
    """The BLAKE3 digest of a file. Raises OSError."""
    digest = blake3(max_threads=blake3.AUTO)
    with open(_open_in(folder, name), "rb", buffering=0) as file:
        while data := file.read(BLOCK):
            digest.update(data)
    return digest.hexdigest()


def _recorded(folder: Folder, record: str, out: Path) -> Mapping[str, FileDigest]:
    where = folder.path / record
    try:
        text = folder.read(record, MAX_JSON_BYTES + 1).decode("utf-8")
        return parse_record(text, str(folder.path))[1]
    except FileNotFoundError:
        raise OutputError(
            f"{out} exists and was not written by gatenorm-stream (there is no {record}), so --force does not "
            "replace it; choose another --out, or delete it yourself"
        ) from None
    except (VerificationError, PlanError, UnicodeDecodeError, OSError) as error:
        raise OutputError(
            f"{where} can't be read as the record of an output of this version, so what it lists is not deleted; "
            "choose another --out, or delete the old output yourself"
        ) from error


def _is(folder: Folder, name: str, found: os.stat_result, digest: FileDigest, digests: bool) -> bool:
    if not stat.S_ISREG(found.st_mode) or found.st_size != digest.size:
        return False
    return not digests or digest_in(folder, name) == digest.blake3


def _open_in(folder: Folder, name: str) -> int:
    """To be read: that it has another name too does no harm."""
    above, _, below = name.partition("/")
    if below:
        with folder.folder(above) as inner:
            return _open_in(inner, below)
    return os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder.handle)


def _unlink_seen(folder: Folder, name: str, was: Seen) -> None:
    above, _, below = name.partition("/")
    if below:
        with folder.folder(above) as inner:
            return _unlink_seen(inner, below, was)
    found = folder.found(name)
    if found and seen(found) == was:
        folder.unlink(name)


def _remove_empty(folder: Folder, name: str) -> None:
    above, _, below = name.partition("/")
    if below:
        with folder.folder(above) as inner:
            return _remove_empty(inner, below)
    folder.rmdir(name)
