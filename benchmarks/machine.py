"""What a result was measured on, and whole commands with their time and peak memory."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

COMMAND = str(Path(sys.executable).with_name("gatenorm-stream"))
PACKAGES = ("gatenorm-stream", "numpy", "safetensors")


def processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def machine() -> dict[str, object]:
    return {
        "cpu": processor(),
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


_RUN = """
import json, os, sys, time
begun = time.perf_counter()
_, status, usage = os.wait4(os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ), 0)
print(json.dumps([time.perf_counter() - begun, usage.ru_maxrss * 1024, os.waitstatus_to_exitcode(status)]))
"""


def measure(*command: object) -> Measured:
    """Runs a command to its end. Raises CalledProcessError if it fails.

    A small process in between starts it, since a new process's peak counts what its parent held at that time.
    """
    words = [str(part) for part in command]
    done = subprocess.run([sys.executable, "-S", "-c", _RUN, *words], check=True, stdout=subprocess.PIPE)
    seconds, peak_rss, code = json.loads(done.stdout.splitlines()[-1])
    if code:
        raise subprocess.CalledProcessError(code, words)
    return Measured(seconds, peak_rss)
