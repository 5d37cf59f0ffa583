"""What a result was measured on, and whole commands with their time and peak memory."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

COMMAND = str(Path(sys.executable).with_name("gatenorm-stream"))
PACKAGES = ("gatenorm-stream", "numpy", "safetensors")


def machine() -> dict[str, object]:
    cpu = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            cpu = line.partition(":")[2].strip()
            break
    return {
        "cpu": cpu,
        "processors": len(os.sched_getaffinity(0)),
        "system": platform.platform(),
        "python": platform.python_version(),
        **{package: version(package) for package in PACKAGES},
    }


@dataclass(frozen=True)
class Measured:
    """Seconds of wall time; bytes of peak resident memory, mapped file pages included (ru_maxrss)."""

    seconds: float
    peak_rss: int


def measure(*command: object) -> Measured:
    """Runs a command to its end. Raises CalledProcessError if it fails."""
    begun = time.perf_counter()
    process = subprocess.Popen([str(part) for part in command], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - begun
    if os.waitstatus_to_exitcode(status):
        raise subprocess.CalledProcessError(status, [str(part) for part in command])
    return Measured(seconds, usage.ru_maxrss * 1024)
