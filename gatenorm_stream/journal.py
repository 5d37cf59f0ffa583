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
from gatenorm_stream.record import RECORD, FileDigest
from gatenorm_stream.synced import write_synced

JOURNAL = ".gatenorm-journal"


class Journal:
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
        write_synced(self._path, json.dumps({"identity": identity}) + "\n")

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
