"""A model as people name it becomes a source: a local directory, or a repository on the Hub."""

from __future__ import annotations

import os
from pathlib import Path

from gatenorm_stream.checkpoint.local import LocalSource
from gatenorm_stream.checkpoint.source import Source
from gatenorm_stream.hub.address import hub_address
from gatenorm_stream.hub.retry import Note
from gatenorm_stream.hub.source import DEFAULT_CONNECTIONS, open_repository


def open_source(
    model: str | os.PathLike[str],
    *,
    revision: str | None = None,
    connections: int | None = None,
    note: Note = lambda line: None,
) -> Source:
    """Opens a local directory, or org/name[@revision] (also as hf:// or URL) on the Hub at one commit.

    Raises CheckpointError if the directory is not there, HubError if the repository can't be read.
    """
    address = hub_address(os.fspath(model), revision)
    if address is None:
        return LocalSource(Path(model))
    return open_repository(address, connections or DEFAULT_CONNECTIONS, note)
