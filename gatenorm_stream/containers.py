"""A model is a safetensors checkpoint or a GGUF file: which of the two does what is needed, is told here."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gatenorm_stream.checkpoint.open import open_checkpoint
from gatenorm_stream.checkpoint.source import Source
from gatenorm_stream.checkpoint_layout import lay_out_checkpoint
from gatenorm_stream.families.model import Model, read_model
from gatenorm_stream.gguf.layout import lay_out_gguf
from gatenorm_stream.gguf.model import read_gguf_model
from gatenorm_stream.gguf.open import SUFFIX, GgufCheckpoint, open_gguf
from gatenorm_stream.gguf.verification import verify_gguf
from gatenorm_stream.layout import Layout
from gatenorm_stream.plans import Plan
from gatenorm_stream.scoring import Progress
from gatenorm_stream.verification import Verified, verify_output


@contextmanager
def open_model(source: Source) -> Iterator[Model]:
    """Reads the model in `source`, and closes it at the end. Raises CheckpointError or UnsupportedModelError."""
    if source.gguf:
        with open_gguf(source) as gguf:
            yield read_gguf_model(gguf)
    else:
        with open_checkpoint(source) as checkpoint:
            yield read_model(checkpoint)


def lay_out(plan: Plan, model: Model) -> Layout:
    """Which bytes make which file of the output. Raises FormatError or CheckpointError."""
    gguf = isinstance(model.checkpoint, GgufCheckpoint)
    return lay_out_gguf(plan, model) if gguf else lay_out_checkpoint(plan, model)


def verify(out: Path, against: Source | None = None, *, progress: Progress | None = None) -> Verified:
    """Checks an output, and with `against` every kept tensor. Raises VerificationError with all that is wrong."""
    check = verify_gguf if out.suffix == SUFFIX and not out.is_dir() else verify_output
    return check(out, against, progress=progress)
