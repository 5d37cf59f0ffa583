"""`gatenorm.json`: the plan that made an output, the digest of every file of it, and a digest of itself.

A shard has marks too: the beginnings of the digests of its header and of all bytes up to each tensor's end, read
off while the shard's own digest was computed. The first mark that doesn't fit names the damaged tensor.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blake3 import blake3

from gatenorm_stream.checkpoint.json_text import MAX_JSON_BYTES, parse_json
from gatenorm_stream.errors import OutputError, VerificationError
from gatenorm_stream.names import CARD, RECORD, SUFFIX, is_safe
from gatenorm_stream.planning.plan import Plan, plan_from_json
from gatenorm_stream.sources.source import Kind
from gatenorm_stream.spelling import did_you_mean

MARK_DIGITS = 12
MOST_FILES = 10_000
"""Of an output: bounds the time to read its record."""

_SEAL, _END = ',\n "blake3": "', "\n}\n"
_BLAKE3 = re.compile(r"[0-9a-f]{64}")
_MARKS = re.compile(rf"[0-9a-f]{{{MARK_DIGITS}}}( [0-9a-f]{{{MARK_DIGITS}}})*")


@dataclass(frozen=True)
class FileDigest:
    """`marks` are the beginnings of the digests of the file's first bytes, each up to a certain byte of it."""

    size: int
    blake3: str
    marks: tuple[str, ...] = ()


class MarkedDigest:
    """The BLAKE3 digest of what it is fed, and a mark at each of `marked_at`, which rise and count from byte 0."""

    def __init__(self, marked_at: Iterable[int] = ()) -> None:
        self._digest = blake3()
        self._coming = iter(marked_at)
        self._next = next(self._coming, None)
        self._size = 0
        self.marks: list[str] = []

    def update(self, data: bytes | memoryview) -> None:
        view = memoryview(data)
        while self._next is not None and self._next <= self._size + len(view):
            before = self._next - self._size
            self._feed(view[:before])
            self.marks.append(self._digest.hexdigest()[:MARK_DIGITS])
            self._next, view = next(self._coming, None), view[before:]
        self._feed(view)

    def result(self) -> FileDigest:
        return FileDigest(self._size, self._digest.hexdigest(), tuple(self.marks))

    def _feed(self, view: memoryview) -> None:
        self._digest.update(view)
        self._size += len(view)


def kind_at(out: Path) -> Kind:
    """Whatever an output is called: a file is a GGUF file, a directory holds safetensors."""
    return Kind.GGUF if out.is_file() else Kind.SAFETENSORS


def record_path(out: Path, kind: Kind) -> Path:
    """In an output, or beside it if it is a file: that of NAME.gguf is NAME.gatenorm.json."""
    return out.with_suffix(f".{RECORD}") if kind is Kind.GGUF else out / RECORD


def card_path(out: Path) -> Path:
    """Where the model card of a GGUF file is: that of NAME.gguf is NAME.gatenorm.md."""
    return record_path(out, Kind.GGUF).with_suffix(".md")


def beside(out: Path) -> dict[str, Path]:
    """Where the record and the card of a GGUF file are, by the names that they have in a directory."""
    return {RECORD: record_path(out, Kind.GGUF), CARD: card_path(out)}


def render_record(plan: Plan, files: Mapping[str, FileDigest]) -> str:
    """The one text that stands for this plan and these files: what differs from it in a byte was changed."""
    content: dict[str, Any] = {
        **plan.to_json(),
        "files": {name: _entry(f) for name, f in sorted(files.items())},
    }
    return _sealed(_text(content))


def output_of(path: Path) -> Path:
    """The output whose record `path` is, or else `path` itself.

    Raises OutputError if nothing is there.
    """
    if not path.exists():
        raise OutputError(f"{path} is not there; give an output, a directory or a GGUF file{did_you_mean(path)}")
    if path.is_file() and path.name == RECORD:
        return path.parent
    if path.is_file() and path.name.endswith(f".{RECORD}"):
        file = path.with_name(f"{path.name.removesuffix(RECORD)}{SUFFIX[1:]}")
        if file.is_file():
            return file
    return path


def read_record(out: Path) -> tuple[Plan, dict[str, FileDigest]]:
    """The record of the output `out`, a directory or a file.

    Raises VerificationError or PlanError if there is none, or it was changed.
    """
    if out.is_file() and out.name.endswith(RECORD):
        raise VerificationError(str(out), ["it is the record of an output; give the output itself"])
    path = record_path(out, kind_at(out))
    if not path.is_file():
        raise VerificationError(
            str(out),
            [f"there is no {path.name}{did_you_mean(out)}"],
            verdict="is not an output of gatenorm-stream",
        )
    try:
        with open(path, "rb") as file:
            text = file.read(MAX_JSON_BYTES + 1).decode("utf-8")
    except UnicodeDecodeError:
        raise VerificationError(str(out), [f"{RECORD} was changed after it was written"]) from None
    return parse_record(text, str(out))


def parse_record(text: str, where: str) -> tuple[Plan, dict[str, FileDigest]]:
    """Raises PlanError or VerificationError if `text` is not exactly what `render_record` wrote.

    The digest is compared before anything is parsed.
    """
    damaged = VerificationError(where, [f"{RECORD} was changed after it was written"])
    if _sealed(text.rpartition(_SEAL)[0] + _END) != text:
        raise damaged
    try:
        content = parse_json(text.encode("utf-8"))
    except ValueError:
        raise damaged from None
    if not isinstance(content, dict):
        raise damaged
    content.pop("blake3", None)
    plan = plan_from_json(content, f"{where}/{RECORD}")
    listed = content.get("files")
    if isinstance(listed, dict) and len(listed) > MOST_FILES:
        raise VerificationError(
            where, [f"{RECORD} lists {len(listed)} files, and an output has at most {MOST_FILES}"]
        )
    if not isinstance(listed, dict) or not all(_is_entry(entry) for entry in listed.values()):
        raise damaged
    for name in listed:
        if not is_safe(name):
            raise VerificationError(where, [f"{RECORD} lists a file called {name!r}, which could be anywhere"])
    files = {
        name: FileDigest(entry["size"], entry["blake3"], tuple((entry.get("marks") or "").split()))
        for name, entry in listed.items()
    }
    if render_record(plan, files) != text:
        raise damaged
    return plan, files


def _entry(file: FileDigest) -> dict[str, Any]:
    entry: dict[str, Any] = {"size": file.size, "blake3": file.blake3}
    return entry | {"marks": " ".join(file.marks)} if file.marks else entry


def _is_entry(entry: Any) -> bool:
    match entry:
        case {"size": int(size), "blake3": str(digest), **rest}:
            marks = rest.get("marks")
            fits = marks is None or (isinstance(marks, str) and _MARKS.fullmatch(marks))
            return bool(size >= 0 and _BLAKE3.fullmatch(digest) and fits)
    return False


def _text(content: Mapping[str, Any]) -> str:
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def _sealed(text: str) -> str:
    """The text of a JSON object with its own digest as the last entry."""
    digest = blake3(text.encode("utf-8")).hexdigest()
    return f'{text.removesuffix(_END)}{_SEAL}{digest}"{_END}'
