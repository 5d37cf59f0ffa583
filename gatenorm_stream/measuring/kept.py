"""What passes over a remote model read is kept on disk, so that no byte is fetched twice."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from gatenorm_stream.checkpoint.tensors import Checkpoint
from gatenorm_stream.disk import check_free
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
        what = f"to run {checkpoint.source.title}, whose weights are kept there meanwhile, takes"
        check_free(Path(folder).parent, checkpoint.unfetched_bytes, what, "set TMPDIR to another place")
        checkpoint.source.keep_in(open_folder(Path(folder)))
        yield
