"""Verifies an output: its digests first, then what it says against its plan, then all of it against a source."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import closing, nullcontext
from itertools import chain
from pathlib import Path

from gatenorm_stream.checkpoint.tensors import Checkpoint
from gatenorm_stream.errors import CheckpointError, VerificationError
from gatenorm_stream.sources.source import Kind, Source
from gatenorm_stream.verifying.against_source import compare
from gatenorm_stream.verifying.contradictions import in_directory, in_gguf
from gatenorm_stream.verifying.digests import changed_files
from gatenorm_stream.verifying.holes import too_many_holes
from gatenorm_stream.verifying.output import Output, half_replaced, read_output
from gatenorm_stream.verifying.trust import foreign_code
from gatenorm_stream.verifying.verified import Verified
from gatenorm_stream.work import Progress


def verify(out: Path, against: Source | None = None, *, progress: Progress | None = None) -> Verified:
    """Checks every byte of `out` against the digests in its record, its tensors against its config and plan, and
    with `against`, which it closes, every tensor against what the plan makes of the source's.

    Raises VerificationError with all that is wrong; what can't be told before something is right again is left out.
    """
    with closing(against) if against else nullcontext():
        output = _undamaged(out, progress)
        if output.kind is Kind.SAFETENSORS:
            _stop_at(chain(in_directory(output), foreign_code(output)), out)
        with _open_output(output) as held:
            if output.kind is Kind.GGUF:
                _stop_at(in_gguf(output, held), out)
            computed = 0
            if against:
                problems, computed = compare(output, held, against, progress)
                _stop_at(problems, out)
            size = sum(f.size for f in output.files.values())
            title = against.title if against else None
            return Verified(output.plan, len(output.files), len(held.tensors), size, title, computed)


def _undamaged(out: Path, progress: Progress | None) -> Output:
    output = read_output(out)
    _stop_at(too_many_holes(output), out)
    problems = list(changed_files(output, progress))
    for other in half_replaced(out) if problems else ():
        if not any(chain(too_many_holes(other), changed_files(other, progress))):
            return other
    _stop_at(problems, out)
    return output


def _open_output(output: Output) -> Checkpoint:
    try:
        return output.open()
    except CheckpointError as error:
        raise VerificationError(str(output.path), [str(error)]) from error


def _stop_at(problems: Iterable[str], out: Path) -> None:
    if found := list(dict.fromkeys(problems)):
        raise VerificationError(str(out), found)
