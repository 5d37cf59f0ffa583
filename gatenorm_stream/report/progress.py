"""Progress of long work, on standard error: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gatenorm_stream.report.quantities import si

if TYPE_CHECKING:
    from gatenorm_stream.hub.retry import Note
    from gatenorm_stream.scoring import Progress

LINE_SECONDS = 10


@dataclass(frozen=True)
class Meter:
    """`report` is called by scoring, writing and verifying; `note` shows a line; in `pause`, others may print."""

    report: Progress
    note: Note
    pause: Callable[[], AbstractContextManager[None]]


@contextmanager
def progress_meter(quiet: bool) -> Iterator[Meter]:
    """On a terminal: bytes, rate, time left and the file. Elsewhere, or `quiet`: a line every `LINE_SECONDS`."""
    if quiet or not sys.stderr.isatty():
        yield Meter(_lines(), _line, nullcontext)
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
    from rich.progress import Progress as Bars

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description:<9}"),
        BarColumn(bar_width=None),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(compact=True),
        TextColumn("{task.fields[file]}"),
    )
    with Bars(
        *columns, console=console, transient=True, expand=True, redirect_stdout=False, redirect_stderr=False
    ) as bars:
        tasks = {}

        def report(what: str, done: int, total: int, file: str) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total, file="")
            bars.update(tasks[what], completed=done, file=_short(file))

        @contextmanager
        def pause() -> Iterator[None]:
            for task in tasks.values():
                bars.remove_task(task)
            tasks.clear()
            bars.stop()
            yield
            bars.start()

        yield Meter(report, lambda line: console.print(line, markup=False, highlight=False), pause)


def _lines() -> Progress:
    shown = time.monotonic()

    def report(what: str, done: int, total: int, file: str) -> None:
        nonlocal shown
        if time.monotonic() - shown >= LINE_SECONDS:
            shown = time.monotonic()
            _line(f"{what}: {si(done, 'B')} of {si(total, 'B')} ({100 * done // total} %), {file}")

    return report


def _line(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _short(file: str) -> str:
    """The shard's number is what matters: model-00003-of-00007.safetensors is 00003-of-00007."""
    return file.removeprefix("model-").removesuffix(".safetensors")
