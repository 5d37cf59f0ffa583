"""What of a `.partial` is complete, so that a run that was cut off can go on."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import asdict
from pathlib import Path
from threading import Lock
from typing import Any

from gatenorm_stream.checkpoint.json_text import parse_json
from gatenorm_stream.disk import boot_id, sync_directory, sync_file, write_synced
from gatenorm_stream.errors import OutputError
from gatenorm_stream.names import OWN_PREFIX, RECORD
from gatenorm_stream.writing.partial import SPOOL, clear, left_by_us
from gatenorm_stream.writing.record import FileDigest

JOURNAL = f"{OWN_PREFIX}journal"
SCHEMA = 3
"""Of the journal's lines; one written in another schema is not continued."""


class Journal:
    """One line for the plan, one for each file or first part of one that is there; kept in the `.partial`."""

    def __init__(self, partial: Path, identity: str, names: Collection[str]) -> None:
        """`identity` stands for the run, `names` are the files that it writes.

        Raises OutputError if `partial` holds what another run left.
        """
        self._path = partial / JOURNAL
        self._lock = Lock()
        self.finished: dict[str, FileDigest] = {}
        self._written: dict[str, int] = {}
        first = {"schema": SCHEMA, "identity": identity}
        lines = self._lines()
        if lines and lines[0] == first:
            for line in lines[1:]:
                self._believe(partial, line, names)
            self._append_text("\n")  # the last line may have been cut off
            return
        content = [p for p in partial.iterdir() if p not in (self._path, partial / SPOOL)]
        if content and not left_by_us(partial):
            raise OutputError(f"{partial} was not left by gatenorm-stream; choose another --out")
        if content and not (partial / RECORD).is_file():
            raise OutputError(
                f"{partial} was left by a run with another plan, source or version; continue that run, or start "
                "over with --restart"
            )
        clear(partial, keep=(JOURNAL, SPOOL, RECORD))
        write_synced(self._path, json.dumps(first) + "\n")
        (partial / RECORD).unlink(missing_ok=True)
        sync_directory(partial)

    def written(self, name: str) -> int:
        """How many bytes of an unfinished file are there from its beginning."""
        return self._written.get(name, 0)

    def add(self, name: str, digest: FileDigest) -> None:
        """Says that `name` is complete."""
        self._append({"name": name, **asdict(digest)})
        self.finished[name] = digest

    def add_part(self, name: str, size: int, boot: str | None) -> None:
        """Says that the first `size` bytes of `name` are there: for good if `boot` is None, else until the machine
        is started anew.
        """
        self._append({"name": name, "written": size} | ({"boot": boot} if boot else {}), sync=boot is None)

    def remove(self) -> None:
        self._path.unlink()

    def _append(self, line: dict[str, Any], *, sync: bool = True) -> None:
        self._append_text(json.dumps(line) + "\n", sync=sync)

    def _append_text(self, text: str, *, sync: bool = False) -> None:
        with self._lock, open(self._path, "a", encoding="utf-8") as journal:
            journal.write(text)
            journal.flush()
            if sync:
                sync_file(journal.fileno(), self._path)

    def _believe(self, partial: Path, line: Any, names: Collection[str]) -> None:
        """Takes over what a line says as far as the file bears it out."""
        match line:
            case {"name": str(name), **said} if name in names and not (partial / name).is_symlink():
                path = partial / name
                size = path.stat().st_size if path.is_file() else -1
            case _:
                return
        match said:
            case {"written": int(written)} if written <= size and said.get("boot") in (None, boot_id()):
                self._written[name] = written
            case {"size": int(whole), "blake3": str(digest), "marks": [*marks]} if whole == size:
                self.finished[name] = FileDigest(size, digest, tuple(map(str, marks)))

    def _lines(self) -> list[Any]:
        """What stands in the lines that are whole."""
        try:
            lines = self._path.read_bytes().splitlines()
        except FileNotFoundError:
            return []
        parsed = []
        for line in lines:
            try:
                parsed.append(parse_json(line))
            except ValueError:
                continue
        return parsed
