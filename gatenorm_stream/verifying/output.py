"""An output and its record, whichever kind it is of."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from gatenorm_stream.checkpoint.gguf import open_gguf
from gatenorm_stream.checkpoint.safetensors import open_checkpoint
from gatenorm_stream.checkpoint.tensors import Checkpoint
from gatenorm_stream.errors import PlanError, VerificationError
from gatenorm_stream.formats.choice import FORMATS, GGUF_FORMATS
from gatenorm_stream.formats.edit import Format
from gatenorm_stream.names import CARD
from gatenorm_stream.planning.gguf_layout import MODEL
from gatenorm_stream.planning.plan import Plan
from gatenorm_stream.sources.local import LocalSource
from gatenorm_stream.sources.source import Kind
from gatenorm_stream.writing.partial import partial_path
from gatenorm_stream.writing.record import FileDigest, card_path, kind_at, read_record


@dataclass(frozen=True)
class Output:
    """`files` are those on record; `path` is one GGUF file, beside its card, or a directory of safetensors."""

    path: Path
    plan: Plan
    files: Mapping[str, FileDigest]
    format: Format
    kind: Kind
    card: Path

    def file(self, name: str) -> Path:
        """Where the file of that name on record is."""
        if self.kind is Kind.GGUF:
            return self.card if name == CARD else self.path
        return self.path / name

    def called(self, name: str) -> str:
        """That file, as messages about this output name it."""
        if self.kind is Kind.GGUF:
            return self.file(name).name if name == CARD else "it"
        return name

    def open(self) -> Checkpoint:
        """Reads its headers anew; follows a link to a single file. Raises CheckpointError."""
        if self.kind is Kind.SAFETENSORS:
            return open_checkpoint(LocalSource(self.path))
        file = self.path.resolve()
        return open_gguf(LocalSource(file.parent, title=str(self.path), gguf=(file.name,)))


def read_output(path: Path) -> Output:
    """What a file is called does not matter: a directory holds safetensors, a file is a GGUF file.

    Raises VerificationError or PlanError if its record is not there, was changed, or is one of the other kind.
    """
    kind = kind_at(path)
    return _output(path, kind, read_record(path), card_path(path) if kind is Kind.GGUF else path / CARD)


def half_replaced(path: Path) -> list[Output]:
    """What a GGUF file may be too, if the run that put it in the place of an earlier one was killed right then: its
    record is still to be exchanged, and perhaps its card.
    """
    partial = partial_path(path)
    if kind_at(path) is not Kind.GGUF or not partial.is_dir():
        return []
    with suppress(VerificationError, PlanError, OSError):
        record = read_record(partial)
        return [_output(path, Kind.GGUF, record, card) for card in (partial / CARD, card_path(path))]
    return []


def _output(path: Path, kind: Kind, record: tuple[Plan, Mapping[str, FileDigest]], card: Path) -> Output:
    plan, files = record
    gguf = kind is Kind.GGUF
    formats = GGUF_FORMATS if gguf else FORMATS
    fits = kind is plan.kind and gguf == (files.keys() == {MODEL, CARD})
    if not fits or plan.format not in formats:
        found = "beside it is not that of a GGUF file" if gguf else "in it is not that of a directory"
        raise VerificationError(str(path), [f"the record {found}"])
    return Output(path, plan, files, formats[plan.format], kind, card)
