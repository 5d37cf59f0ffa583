"""The last act: what is complete and synced gets its name."""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

from gatenorm_stream.disk import sync_directory
from gatenorm_stream.errors import OutputError
from gatenorm_stream.names import CARD, RECORD
from gatenorm_stream.sources.source import Kind
from gatenorm_stream.writing.journal import JOURNAL
from gatenorm_stream.writing.partial import open_partial, partial_path
from gatenorm_stream.writing.record import card_path, record_path


def publish_directory(partial: Path, out: Path, force: bool) -> None:
    """An earlier output is moved aside first and deleted last, so that a crash never leaves half of either.

    Without `force` the rename itself refuses a directory that is not empty.
    """
    aside = None
    if force and (out / RECORD).is_file():
        aside = Path(tempfile.mkdtemp(prefix=f"{out.name}.replaced-", dir=out.parent))
        os.rename(out, aside / out.name)
    os.rename(partial, out)
    sync_directory(out.parent)
    if aside:
        try:
            shutil.rmtree(aside)
        except OSError as error:
            raise OutputError(f"{out} is complete, but the one before can't be deleted: {error}") from error


def publish_file(partial: Path, name: str, out: Path, force: bool) -> None:
    """The file `name`, and before it the record and the card, so that there is never a file without them.

    Raises OutputError if there is an `out` by now, unless `force` lets it be replaced.
    """
    if out.exists() and not force:
        raise OutputError(f"{out} was made by someone else in the meantime; choose another --out")
    os.rename(partial / RECORD, record_path(out, Kind.GGUF))
    os.rename(partial / CARD, card_path(out))
    os.rename(partial / name, out)
    sync_directory(out.parent)


def remove_emptied(out: Path) -> None:
    """Deletes the `.partial` of a run that was cut off after `publish_file`: at most its journal is left in it."""
    if out.is_file() and partial_path(out).is_dir():
        with suppress(OSError, OutputError), open_partial(out) as partial:
            if {p.name for p in partial.iterdir()} <= {JOURNAL}:
                shutil.rmtree(partial)
