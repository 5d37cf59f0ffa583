"""What passes over a remote model read is kept on disk, so that no byte is fetched twice."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from gatenorm_stream.checkpoint.tensors import Checkpoint
from gatenorm_stream.disk import free_bytes
from gatenorm_stream.errors import OutputError
from gatenorm_stream.folder import open_folder


@contextmanager
def kept(checkpoint: Checkpoint) -> Iterator[None]:
    """Unless it is already, in a temporary directory: after this the source must not be read any more.

    Raises OutputError if that has no room for all the weights.
    """
    if checkpoint.source.keeps:
        yield
        return
    with TemporaryDirectory(prefix="gatenorm-") as folder:
        where, title = Path(folder).parent, checkpoint.source.title
        free, needed = free_bytes(where), checkpoint.unfetched_bytes
        if free is not None and free < needed:
            raise OutputError(
                f"{where} has {free / 1e9:.2f} GB free, the weights of {title} take {needed / 1e9:.2f} GB there "
                "while it is run; free some space, or set TMPDIR to another place"
            )
        checkpoint.source.keep_in(open_folder(Path(folder)))
        yield
