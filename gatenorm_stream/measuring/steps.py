"""Steps of a pass, which are layers, told as bytes of the weights."""

from __future__ import annotations

from collections.abc import Callable

from gatenorm_stream.checkpoint.tensors import Checkpoint
from gatenorm_stream.measuring.forward import Steps
from gatenorm_stream.work import Progress


def steps_in_bytes(progress: Progress | None, checkpoint: Checkpoint, what: str, file: str = "") -> Steps:
    """To call as steps(layers done, layers in all)."""

    def steps(done: int, total: int) -> None:
        if progress:
            progress(what, checkpoint.weight_bytes * done // total, checkpoint.weight_bytes, file)

    return steps


def steps_of_passes(progress: Progress | None, checkpoint: Checkpoint) -> Callable[[int], Steps]:
    """The steps of pass number 0, 1, 2 ..."""
    return lambda number: steps_in_bytes(progress, checkpoint, f"pass {number + 1}")
