"""A run that is sent a signal in the middle of something, and what must come of it."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tests.started import COMMAND

SECONDS = 2.0
LONGEST_WAY = 120
ENDS = {signal.SIGINT: (130, "interrupted"), signal.SIGTERM: (143, "terminated")}

Reached = Callable[[subprocess.Popen[str]], bool]
"""Whether it is in the phase that is meant."""


def ends(
    words: Sequence[object],
    reached: Reached,
    number: signal.Signals,
    folder: Path,
    variables: Mapping[str, str],
    *,
    more: float = 0.0,
) -> None:
    """Starts the command, and signals it once it has `reached` a phase: it ends within two seconds of a machine
    without other work, and `more`, with its exit code and one line, and without an `out` in `folder`.
    """
    with open(folder / "stderr", "w") as stderr:
        process = subprocess.Popen(
            [COMMAND, *map(str, words)],
            env=variables,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            text=True,
        )
    latest = time.monotonic() + LONGEST_WAY
    try:
        while not reached(process):
            assert process.poll() is None, (folder / "stderr").read_text()
            assert time.monotonic() < latest
            time.sleep(0.01)
        time.sleep(0.2)
        assert process.poll() is None
        begun = time.monotonic()
        process.send_signal(number)
        process.wait(60)
        seconds = time.monotonic() - begun
    finally:
        process.kill()
        process.wait()
    code, word = ENDS[number]
    said = (folder / "stderr").read_text()
    assert process.returncode == code, said
    assert seconds < SECONDS + more + 2 * other_work()
    assert said.splitlines()[-1].startswith(word)
    assert said.count(word) == 1
    assert "Traceback" not in said
    assert not (folder / "out").exists()


def other_work() -> float:
    """Seconds that it takes to start and end a process: what a machine with other work adds to anything."""
    begun = time.monotonic()
    subprocess.run([sys.executable, "-c", "pass"], check=True)
    return time.monotonic() - begun
