"""Progress of long work, on standard error: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gatenorm_stream.printable import printable
from gatenorm_stream.report.quantities import si

if TYPE_CHECKING:
    from gatenorm_stream.sources.hub.retry import Note
    from gatenorm_stream.work import Progress

LINE_SECONDS = 10
WIDE = 65
"""Columns in which bytes, rate and file find room."""


@dataclass(frozen=True)
class Meter:
    """`report` is called by scoring, writing and verifying; `note` shows a line; in `pause`, others may print."""

    report: Progress
    note: Note
    pause: Callable[[], AbstractContextManager[None]]


@contextmanager
def progress_meter(quiet: bool) -> Iterator[Meter]:
    """On a terminal: bytes, rate, time left, the file. Elsewhere: a line every `LINE_SECONDS`. `quiet`: nothing."""
    if quiet:
        yield Meter(lambda *_: None, lambda _: None, nullcontext)
        return
    if not sys.stderr.isatty() or os.environ.get("TERM") in ("dumb", "unknown"):
        yield Meter(_print_now_and_then(), _line, nullcontext)
        return
    from rich.console import Console, ConsoleDimensions
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        TaskProgressColumn,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )
    from rich.progress import Progress as Bars

    class Roomy(Console):
        """With room at the right for the ^C that a terminal echoes; else it would begin a line and the bar stay."""

        @property  # type: ignore[misc]
        def size(self) -> ConsoleDimensions:
            found = super().size
            return ConsoleDimensions(max(found.width - 3, 1), found.height)

    console = Roomy(stderr=True)
    wide = console.width >= WIDE
    columns = (
        TextColumn("{task.description:<9}"),
        BarColumn(bar_width=None),
        *((DownloadColumn(), TransferSpeedColumn()) if wide else (TaskProgressColumn(),)),
        TimeRemainingColumn(compact=True),
        *((TextColumn("{task.fields[file]}", markup=False),) if wide else ()),
    )
    with Bars(
        *columns, console=console, transient=True, expand=True, redirect_stdout=False, redirect_stderr=False
    ) as bars:
        tasks = {}

        def report(what: str, done: int, total: int, file: str) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total, file="")
            bars.update(tasks[what], completed=done, file=printable(_short(file)))

        @contextmanager
        def pause() -> Iterator[None]:
            for task in tasks.values():
                bars.remove_task(task)
            tasks.clear()
            bars.stop()
            yield
            bars.start()

        yield Meter(report, lambda line: console.print(printable(line), markup=False, highlight=False), pause)


def _print_now_and_then() -> Progress:
    shown = time.monotonic()

    def report(what: str, done: int, total: int, file: str) -> None:
        nonlocal shown
        if time.monotonic() - shown >= LINE_SECONDS:
            shown = time.monotonic()
            of_file = f", {file}" if file else ""
            _line(f"{what}: {si(done, 'B')} of {si(total, 'B')} ({100 * done // total} %){of_file}")

    return report


def _line(line: str) -> None:
    print(printable(line), file=sys.stderr, flush=True)


def _short(file: str) -> str:
    """The shard's number is what matters: model-00003-of-00007.safetensors is 00003-of-00007."""
    return file.removeprefix("model-").removesuffix(".safetensors")
