"""What of a `.partial` is complete, so that a run that was cut off can go on."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import asdict
from pathlib import Path
from threading import Lock
from typing import Any

from gatenorm_stream.errors import OutputError
from gatenorm_stream.partial import SPOOL
from gatenorm_stream.record import RECORD, FileDigest
from gatenorm_stream.synced import boot_id, write_synced

JOURNAL = ".gatenorm-journal"


class Journal:
    """One line for the plan, one for each file or first part of one that is there; kept in the `.partial`."""

    def __init__(self, partial: Path, identity: str, restart: bool) -> None:
        self._path = partial / JOURNAL
        self._lock = Lock()
        self.finished: dict[str, FileDigest] = {}
        self._written: dict[str, int] = {}
        lines = self._lines()
        if lines and lines[0] == {"identity": identity} and not restart:
            self._believe(partial, lines[1:])
            return
        content = [p for p in partial.iterdir() if p not in (self._path, partial / SPOOL)]
        if content and not restart and not (partial / RECORD).is_file():
            raise OutputError(
                f"{partial} was left by a run with another plan or source; continue that run, or start over "
                "with --restart"
            )
        for path in content:
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        write_synced(self._path, json.dumps({"identity": identity}) + "\n")

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

    def _append(self, line: dict[str, Any], *, sync: bool = True) -> None:
        with self._lock, open(self._path, "a", encoding="utf-8") as journal:
            journal.write(json.dumps(line) + "\n")
            journal.flush()
            if sync:
                os.fsync(journal.fileno())

    def _believe(self, partial: Path, lines: list[dict[str, Any]]) -> None:
        """Takes over what the lines say as far as the files bear it out."""
        for line in lines:
            path = partial / line["name"]
            size = path.stat().st_size if path.is_file() else 0
            if "written" in line and line["written"] <= size and line.get("boot") in (None, boot_id()):
                self._written[line["name"]] = line["written"]
            elif "sha256" in line and line["size"] == size and path.is_file():
                self.finished[line["name"]] = FileDigest(size, line["sha256"])

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
