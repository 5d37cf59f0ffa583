"""A preload of dask workers: every range that a worker reads of a checkpoint goes to the file named by READS."""

import json
import os
from collections.abc import Callable
from typing import Any

from gatenorm_stream.sources.local_file import LocalFile
from gatenorm_stream.sources.ranges import ByteRange


def recorded(original: Callable[..., Any]) -> Callable[..., Any]:
    def read(self: LocalFile, where: ByteRange, *rest: Any) -> Any:
        with open(os.environ["READS"], "a", encoding="ascii") as log:
            log.write(json.dumps([os.getpid(), self.path.name, where.start, where.stop]) + "\n")
        return original(self, where, *rest)

    return read


def dask_setup(worker: object) -> None:
    """Called once for each worker, where the file itself may be imported more often."""
    for name in ("read", "read_into"):
        setattr(LocalFile, name, recorded(getattr(LocalFile, name)))
