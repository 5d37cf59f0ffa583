"""A scheduler and its workers, on the loopback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

LAYERS = 24
PRELOAD = Path(__file__).with_name("recorded_reads.py")


class Cluster:
    """A scheduler and two workers of one thread; `reads` is what the workers have read, in order.

    `options` are given to all three, as their certificates are.
    """

    def __init__(self, folder: Path, *options: object) -> None:
        self._log = folder / "reads.jsonl"
        self._log.touch()
        self._options = options
        self._environment = {**os.environ, "READS": str(self._log), "OPENBLAS_NUM_THREADS": "1"}
        place = folder / "scheduler.json"
        self._processes = [self._start("scheduler", "--port", "0", "--no-dashboard", "--scheduler-file", place)]
        while not place.exists() or not place.read_text():
            time.sleep(0.05)
        self.address = str(json.loads(place.read_text())["address"])
        for _ in range(2):
            options = ("--nthreads", "1", "--no-nanny", "--no-dashboard", "--preload", PRELOAD)
            self._processes.append(self._start("worker", self.address, *options))

    def _start(self, *arguments: object) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "dask", *map(str, (*arguments, *self._options)), "--host", "127.0.0.1"]
        return subprocess.Popen(command, env=self._environment, stderr=subprocess.DEVNULL)

    @property
    def reads(self) -> list[tuple[int, str, int, int]]:
        return [tuple(json.loads(line)) for line in self._log.read_text().splitlines()]

    def wait_for_workers(self) -> None:
        from distributed import Client

        with Client(self.address, set_as_default=False) as client:
            client.wait_for_workers(2, timeout=60)

    def stop(self) -> None:
        for process in reversed(self._processes):
            process.kill()
            process.wait()
