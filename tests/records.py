"""Records that fit outputs as they are: what a buggy or lying writer would leave."""

from __future__ import annotations

from pathlib import Path

from blake3 import blake3

from gatenorm_stream.names import CARD
from gatenorm_stream.planning.plan import read_plan
from gatenorm_stream.writing.record import FileDigest, card_path, kind_at, record_path, render_record


def record_anew(out: Path) -> None:
    """Gives a changed output, a directory or a GGUF file, a record of its own plan and of its files as they are."""
    record = record_path(out, kind_at(out))
    files = {"model.gguf": out, CARD: card_path(out)} if out.is_file() else files_of(out)
    digests = {
        name: FileDigest(path.stat().st_size, blake3(path.read_bytes()).hexdigest()) for name, path in files.items()
    }
    record.write_text(render_record(read_plan(record), digests))


def files_of(out: Path) -> dict[str, Path]:
    """The files of an output in a directory but its record, by their names there."""
    found = {p.relative_to(out).as_posix(): p for p in sorted(out.rglob("*")) if p.is_file()}
    return {name: path for name, path in found.items() if name != "gatenorm.json"}
