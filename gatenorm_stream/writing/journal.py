"""What of a `.partial` is complete, so that a run that was cut off can go on."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from threading import Lock
from typing import Any

from blake3 import blake3

from gatenorm_stream.checkpoint.json_text import parse_json
from gatenorm_stream.disk import boot_id, sync_file
from gatenorm_stream.errors import OutputError
from gatenorm_stream.folder import Folder
from gatenorm_stream.writing.partial import JOURNAL, SPOOL, check_ours
from gatenorm_stream.writing.record import MARK_DIGITS, FileDigest

SCHEMA = 5
"""Of the journal's lines; one written in another schema is not continued."""
MOST_BYTES = 256 << 20
"""Of a journal that are read."""
_BLAKE3 = re.compile(r"[0-9a-f]{64}")
_MARK = re.compile(rf"[0-9a-f]{{{MARK_DIGITS}}}")


class Journal:
    """One line for the plan, one for each file or first part of one that is there; kept in the `.partial`."""

    def __init__(self, partial: Folder, identity: str, files: Mapping[str, tuple[int, int]]) -> None:
        """`identity` stands for the run, `files` are those that it writes: of each its size and number of marks.

        Raises OutputError if `partial` holds what another run left.
        """
        self._partial = partial
        self._lock = Lock()
        self.finished: dict[str, FileDigest] = {}
        self._written: dict[str, int] = {}
        self._unsynced: set[str] = set()
        first = {"schema": SCHEMA, "identity": identity}
        lines = self._lines()
        if lines and lines[0] == first:
            for line in lines[1:]:
                self._believe(line, files)
            self._append_text("\n")  # the last line may have been cut off
            return
        check_ours(partial)
        if any(name not in (JOURNAL, SPOOL) for name in partial.names()):
            raise OutputError(
                f"{partial.path} was left by a run with another plan, source or version; continue that run, or "
                "start over with --restart"
            )
        partial.write(JOURNAL, line_of(first).encode())
        partial.sync()

    def written(self, name: str) -> int:
        """How many bytes of an unfinished file are there from its beginning."""
        return self._written.get(name, 0)

    def unsynced(self, name: str) -> bool:
        """Whether some of them were never synced: whether they reach the disk is tried before it is believed."""
        return name in self._unsynced

    def add(self, name: str, digest: FileDigest, found: os.stat_result) -> None:
        """Says that `name` is complete, and what file it was then: one that was changed since is written anew."""
        self._append({"name": name, "inode": found.st_ino, "ctime": found.st_ctime_ns, **asdict(digest)})
        self.finished[name] = digest

    def add_part(self, name: str, size: int, boot: str | None) -> None:
        """Says that the first `size` bytes of `name` are there: for good if `boot` is None, else until the machine
        is started anew.
        """
        self._append({"name": name, "written": size} | ({"boot": boot} if boot else {}), sync=boot is None)

    def add_failure(self) -> None:
        """Says, if the disk still takes it, that a sync failed: what was not on the disk by then may be lost, and
        nothing tells what.
        """
        with suppress(OSError, OutputError):
            self._append({"failed": "sync"})

    def add_publication(self, publishes: int | Mapping[str, str], replaces: int | None = None) -> None:
        """Says what is about to get the output's name: the inode of a directory, and of the one that has it; or the
        digests of a GGUF file, its card and its record.
        """
        self._append({"publishes": publishes, "replaces": replaces})

    def _append(self, line: dict[str, Any], *, sync: bool = True) -> None:
        self._append_text(line_of(line), sync=sync)

    def _append_text(self, text: str, *, sync: bool = False) -> None:
        flags = os.O_WRONLY | os.O_APPEND
        with self._lock, open(self._partial.open(JOURNAL, flags), "a", encoding="utf-8") as journal:
            journal.write(text)
            journal.flush()
            if sync:
                sync_file(journal.fileno(), self._partial.path / JOURNAL)

    def _believe(self, line: dict[str, Any], files: Mapping[str, tuple[int, int]]) -> None:
        """Takes over what a line says as far as the file bears it out."""
        match line:
            case {"failed": "sync"}:
                for name in self._unsynced:
                    self._written.pop(name, None)
                self._unsynced.clear()
                return
            case {"name": str(name), **said} if name in files:
                pass
            case _:
                return
        whole, marks = files[name]
        found = _plain(self._partial, name)
        if found is None:
            return
        match said:
            case {"written": int(written)} if 0 <= written <= min(found.st_size, whole) and type(written) is int:
                if said.get("boot") in (None, boot_id()):
                    self._written[name] = written
                    (self._unsynced.add if said.get("boot") else self._unsynced.discard)(name)
            case {"size": int(size), "blake3": str(digest), "marks": [*marked], "inode": inode, "ctime": ctime}:
                same = (size, found.st_size, inode, ctime) == (whole, whole, found.st_ino, found.st_ctime_ns)
                fits = len(marked) == marks and all(isinstance(m, str) and _MARK.fullmatch(m) for m in marked)
                if same and fits and _BLAKE3.fullmatch(digest):
                    self.finished[name] = FileDigest(size, digest, tuple(map(str, marked)))

    def _lines(self) -> list[dict[str, Any]]:
        """What stands in the lines that are whole."""
        try:
            lines = self._partial.read(JOURNAL, MOST_BYTES).splitlines()
        except FileNotFoundError:
            return []
        return read_lines(lines)


def line_of(said: Mapping[str, Any]) -> str:
    """With a check of it: a digit that a disk lost would else be believed."""
    return json.dumps({**said, "check": _check(said)}) + "\n"


def read_lines(lines: list[bytes]) -> list[dict[str, Any]]:
    """What is said in those of them that are as they were written."""
    found = []
    for line in lines:
        with suppress(ValueError):
            said = parse_json(line)
            if isinstance(said, dict) and said.pop("check", None) == _check(said):
                found.append(said)
    return found


def _check(said: Mapping[str, Any]) -> str:
    return blake3(json.dumps(said).encode()).hexdigest()[:MARK_DIGITS]


def _plain(partial: Folder, name: str) -> os.stat_result | None:
    try:
        handle = partial.open(name)
    except FileNotFoundError:
        return None
    try:
        return os.fstat(handle)
    finally:
        os.close(handle)
