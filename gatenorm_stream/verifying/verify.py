"""Verifies an output, whichever kind it is of."""

from __future__ import annotations

from pathlib import Path

from gatenorm_stream.names import SUFFIX
from gatenorm_stream.sources.source import Source
from gatenorm_stream.verifying.gguf import verify_gguf
from gatenorm_stream.verifying.safetensors import verify_output
from gatenorm_stream.verifying.verified import Verified
from gatenorm_stream.work import Progress


def verify(out: Path, against: Source | None = None, *, progress: Progress | None = None) -> Verified:
    """Checks an output, and with `against` every kept tensor. Raises VerificationError with all that is wrong."""
    check = verify_gguf if out.suffix == SUFFIX and not out.is_dir() else verify_output
    return check(out, against, progress=progress)
