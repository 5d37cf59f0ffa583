"""A source that is pruned under faults, and what must hold after each of them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any

import gatenorm_stream
from tests.checkpoints import llama_config, llama_shapes, random_tensors, write_checkpoint

STEP = int(os.environ.get("CRASH_STEP", "1"))


def moments(calls: int) -> list[int]:
    """At which of so many calls a run is hurt: at all, or with CRASH_STEP=6 at each sixth and at the last dozen,
    which publish the output."""
    return sorted({*range(1, calls + 1, STEP), *range(max(1, calls - 11), calls + 1)})


def first(*members: str, count: int = 1) -> tuple[str, ...]:
    """All of a table's, or with CRASH_STEP=6 the first ones."""
    return members if STEP == 1 else members[:count]


class Mode(IntEnum):
    """As in faults.c."""

    COUNT = 0
    KILL = 1
    FAIL = 2
    FILL = 3
    SHRINK = 4
    CHANGE = 5
    SIGNAL = 6


@dataclass(frozen=True)
class Ended:
    code: int
    codes: list[int]
    stderr: str
    seconds: float
    reads: int
    changes: list[str]


class Crashing:
    """`source` is pruned into `out`, both below `folder`; `model` is what the command calls it."""

    def __init__(
        self, folder: Path, shim: Path, model: str | None = None, changes: Mapping[str, str] | None = None
    ) -> None:
        self.folder = folder
        self.source = write_checkpoint(folder / "source", random_tensors(llama_shapes()), llama_config())
        (self.source / "chat_templates").mkdir()
        (self.source / "chat_templates" / "tools.jinja").write_text("travels")
        for path in self.source.rglob("*"):
            os.utime(path, (1e9, 1e9))
        self.model = model or str(self.source)
        self.against = self.source
        self.pristine = {p: p.read_bytes() for p in self.source.rglob("*") if p.is_file()}
        self.target = folder / "target"
        self.target.mkdir()
        self.out = self.target / "out"
        environment = {**os.environ, "LD_PRELOAD": str(shim), "OPENBLAS_NUM_THREADS": "1", "NO_COLOR": "1"}
        environment |= changes or {}
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("runner.py"))],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._answer() == "ready"

    def run(
        self, *args: str, mode: Mode = Mode.COUNT, nth: int = 0, error: int = 0, reads: bool = False, **more: Any
    ) -> Ended:
        fault = {
            "to": str(self.target),
            "from": str(self.source),
            "reads": reads,
            "nth": nth,
            "mode": int(mode),
            "error": error,
        }
        args = (self.model, "--out", str(self.out), "--layers", "1,2", "--threads", "1", *args)
        assert self._process.stdin
        self._process.stdin.write(json.dumps({"args": args, "fault": fault, **more}) + "\n")
        self._process.stdin.flush()
        return Ended(**self._answer())

    def clean(self) -> None:
        """As before the first run."""
        shutil.rmtree(self.target) if not os.path.ismount(self.target) else None
        self.target.mkdir(exist_ok=True)
        for path in self.target.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    def restore(self) -> None:
        for path, content in self.pristine.items():
            path.write_bytes(content)
            os.utime(path, (1e9, 1e9))

    def check(self, *, complete: bool | None = None) -> None:
        """The source is as it was, and the output absent or complete (or which of these `complete` says)."""
        assert {p: p.read_bytes() for p in self.source.rglob("*") if p.is_file()} == self.pristine
        if complete is not None:
            assert self.out.exists() == complete
        if self.out.exists():
            gatenorm_stream.verify(self.out, against=self.against)

    def tidy(self) -> None:
        """Once the output has its name, the same command is refused, and clears away what is left beside it."""
        if self.out.exists():
            assert "exists" in self.run().stderr

    def finish(self, *args: str) -> None:
        """The same command again finishes, unless it had already, and leaves nothing beside the output."""
        if not self.out.exists():
            again = self.run(*args)
            assert again.code == 0, again.stderr
        self.check(complete=True)

    def close(self) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait(timeout=20)

    def _answer(self) -> Any:
        assert self._process.stdout
        return json.loads(self._process.stdout.readline())


def said_so(ended: Ended) -> None:
    """It failed, and one line says why."""
    assert ended.code == 1, ended
    assert ended.stderr.startswith("error: ")
    assert ended.stderr.count("\n") == 1
    assert "unexpected" not in ended.stderr
