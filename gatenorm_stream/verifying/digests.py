"""Files compared with the digests on record. Each is read once: marks taken on the way name the damaged part."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from threading import Lock

from gatenorm_stream.checkpoint.gguf import read_gguf_header
from gatenorm_stream.checkpoint.safetensors import read_shard_header
from gatenorm_stream.errors import HeaderError
from gatenorm_stream.names import SUFFIX
from gatenorm_stream.sources.local_file import LocalFile
from gatenorm_stream.sources.pieces import memory_for_pieces, pieces
from gatenorm_stream.sources.ranges import ByteRange
from gatenorm_stream.sources.source import File, Kind
from gatenorm_stream.verifying.output import Output
from gatenorm_stream.verifying.trust import files_off_the_record
from gatenorm_stream.work import Progress, Tally, available_threads, workers
from gatenorm_stream.writing.record import MarkedDigest

CHUNK = 8 << 20
SHARD_SUFFIX = ".safetensors"


def changed_files(output: Output, progress: Progress | None) -> Iterator[str]:
    """What of the files on record is missing or damaged, and files that are not on record.

    Raises CheckpointError if a file can't be read.
    """
    tally = Tally("verifying", sum(f.size for f in output.files.values()), progress)
    parsing = Lock()

    def check(name: str) -> str | None:
        fault = _fault(output, name, parsing, tally)
        return f"{output.called(name)} {fault}" if fault else None

    with workers(available_threads(), tally.stop) as pool:
        yield from (problem for problem in pool.map(check, output.files) if problem)
    if output.kind is Kind.SAFETENSORS:
        yield from files_off_the_record(output)


def _fault(output: Output, name: str, parsing: Lock, tally: Tally) -> str | None:
    path, recorded = output.file(name), output.files[name]
    shown = output.path.name if output.kind is Kind.GGUF else name
    if not path.is_file():
        return "is missing"
    with closing(LocalFile(path)) as file:
        if file.size != recorded.size:
            return f"is {file.size} bytes long instead of {recorded.size}"
        with parsing:  # a hostile header takes 100 MB while it is parsed: one at a time
            parts = _parts(name, file) if recorded.marks else []
        digest = MarkedDigest(end for _, end in parts)
        for piece in pieces(file, ByteRange(0, file.size), memory_for_pieces()):
            digest.update(piece)
            tally.add(len(piece), shown)
    if digest.result().blake3 == recorded.blake3:
        return None
    marks = zip(parts, digest.marks, recorded.marks, strict=False)
    damaged = next((part for (part, _), mine, theirs in marks if mine != theirs), "its last bytes")
    return "was changed: its BLAKE3 digest differs" + (f", first in {damaged}" if parts else "")


def _parts(name: str, file: File) -> list[tuple[str, int]]:
    """What the marks of a file stand behind, with where that ends: the header, then each tensor.

    What a damaged header says is never used: its own mark is the first that doesn't fit.
    """
    try:
        if name.endswith(SUFFIX):
            header = read_gguf_header(file).header
        elif name.endswith(SHARD_SUFFIX):
            header = read_shard_header(file)
        else:
            return []
    except HeaderError:
        return [("its header", file.size)]
    start = header.data_start
    return [("its header", start), *((t.name, start + t.data.stop) for t in header.tensors)]
