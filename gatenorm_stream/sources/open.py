"""A model as people name it becomes a source: a local directory, or a repository on the Hub."""

from __future__ import annotations

import os
from pathlib import Path

from gatenorm_stream.errors import CheckpointError, HubError
from gatenorm_stream.names import split_names
from gatenorm_stream.sources.gguf_file import names_gguf, open_gguf_file
from gatenorm_stream.sources.hub.address import hub_address
from gatenorm_stream.sources.hub.retry import Note
from gatenorm_stream.sources.hub.source import DEFAULT_CONNECTIONS, open_repository
from gatenorm_stream.sources.links import snapshot_in
from gatenorm_stream.sources.local import LocalSource
from gatenorm_stream.sources.source import Source
from gatenorm_stream.spelling import similar_path


def open_source(
    model: str | os.PathLike[str],
    *,
    revision: str | None = None,
    connections: int | None = None,
    note: Note = lambda line: None,
) -> Source:
    """Opens a local directory or GGUF file, or org/name[@revision] (also as hf:// or URL) on the Hub at one commit;
    org/name[@revision]:file.gguf is a GGUF file there.

    Raises CheckpointError if it is not there, HubError if the repository can't be read.
    """
    address = hub_address(os.fspath(model), revision)
    meant = None if Path(model).exists() else similar_path(model)
    try:
        if address is None:
            path = Path(model)
            return open_gguf_file(path) if names_gguf(path) else _directory(path, revision)
        if meant:
            note(f"{model} is not here, but {meant} is; asking the Hub for {model}")
        gguf = split_names(address.file) if address.file else ()
        return open_repository(address, connections or DEFAULT_CONNECTIONS, note, gguf)
    except ValueError as error:
        raise HubError(
            f"{model} can't be asked for ({error}); check HF_ENDPOINT, HF_TOKEN and the proxies in the environment"
        ) from error
    except CheckpointError as error:
        if meant is None:
            raise
        raise type(error)(f"{error}; did you mean the local {meant}?") from error


def _directory(path: Path, revision: str | None) -> Source:
    folder = snapshot_in(path, revision)
    return LocalSource(folder, title=None if folder == path else str(folder))
