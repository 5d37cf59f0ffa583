"""What passes over a remote model read is on this machine, so that no byte is fetched twice."""

from __future__ import annotations

from pathlib import Path
from tempfile import gettempdir

from gatenorm_stream.checkpoint.tensors import Checkpoint
from gatenorm_stream.disk import check_free
from gatenorm_stream.work import Progress


def keep_small_files(checkpoint: Checkpoint) -> None:
    """Those that a model is used with, before its tokenizer is read. Raises as `keep` does."""
    checkpoint.source.fetch_whole(())


def keep(checkpoint: Checkpoint, progress: Progress | None = None) -> None:
    """In the Hub cache; from a mirror whose files that can't hold, in the source's spool or temporary files.

    Raises OutputError if there is no room for all the weights, HubError.
    """
    source = checkpoint.source
    if source.fetch_whole([shard.name for shard in checkpoint.shards], progress) or source.keeps:
        return
    what = f"to run {source.title}, whose weights are kept there meanwhile, takes"
    check_free(Path(gettempdir()), checkpoint.unfetched_bytes, what, "set TMPDIR to another place")
    source.keep_in(None)
