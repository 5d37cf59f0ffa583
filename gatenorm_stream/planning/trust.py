"""What travels must not raise trust: JSON files without code of other repositories, and the digests of code.

Raises CheckpointError where a file can't be judged, or would not be what it is without that code.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from blake3 import blake3

from gatenorm_stream.checkpoint.foreign_code import names_foreign, without_foreign_code
from gatenorm_stream.checkpoint.json_text import parse_json
from gatenorm_stream.errors import CheckpointError
from gatenorm_stream.names import is_safe
from gatenorm_stream.planning.needs import MODULES
from gatenorm_stream.planning.travelling import VOCABULARY
from gatenorm_stream.sources.ranges import ByteRange
from gatenorm_stream.sources.source import Source, read_whole

LARGEST = 8 << 20
"""Bytes of a JSON file that is judged; the largest tokenizer_config.json known has 1.2 MB."""
CHUNK = 1 << 20
UNJUDGED = ("added_tokens.json", "entity_vocab.json", "emoji.json")
"""With the vocabularies: tables of tokens, in which no engine looks for code."""


@dataclass(frozen=True)
class Judged:
    """`texts` are the files that changed, `taken_out` lines for people, `code` the BLAKE3 digests of Python."""

    texts: dict[str, str] = field(default_factory=dict)
    taken_out: tuple[str, ...] = ()
    code: dict[str, str] = field(default_factory=dict)


def judge(source: Source, names: Iterable[str]) -> Judged:
    """`names` are files of `source` that travel."""
    texts, lines, code = dict[str, str](), list[str](), dict[str, str]()
    for name in names:
        if name.lower().endswith(".py"):
            code[name] = _digest(source, name)
        elif is_judged(name):
            value = _json(source, name)
            for what in foreign_modules(value) if name == MODULES else ():
                raise CheckpointError(
                    f"{source.title}: {MODULES} names what is elsewhere ({what}), which stays behind; bring that "
                    "into the model's own folder first"
                )
            cleaned = without_foreign_code(value)
            if cleaned.taken_out:
                texts[name] = as_text(cleaned.value)
                lines += (f"{name}: {what}" for what in cleaned.taken_out)
    return Judged(texts, tuple(lines), code)


def is_judged(name: str) -> bool:
    """Whether a file of this name may tell an engine which code to run."""
    base = PurePosixPath(name).name
    return base.lower().endswith(".json") and not (VOCABULARY.fullmatch(base) or base in UNJUDGED)


def as_text(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def judged_json(text: bytes) -> Any:
    """None for what no engine reads either. Raises ValueError for what one may read otherwise than we do."""
    try:
        return parse_json(text)
    except ValueError:
        if _is_json_to_python(text):
            raise
        return None


def _json(source: Source, name: str) -> Any:
    file = source.open(name)
    if file.size > LARGEST:
        raise CheckpointError(
            f"{file.title} has {file.size} bytes, too many to be searched for a stranger's code; take it out"
        )
    try:
        return judged_json(read_whole(file))
    except ValueError as error:
        raise CheckpointError(
            f"{file.title} can't be searched for a stranger's code ({error}); repair it or take it out"
        ) from error


def _is_json_to_python(text: bytes) -> bool:
    try:
        json.loads(text.decode("utf-8"), parse_int=str)
    except RecursionError:
        return True
    except ValueError:
        return False
    return True


def foreign_modules(value: Any) -> Iterator[str]:
    """Classes and folders elsewhere of which modules are made; none can be left out without another model coming of
    it.
    """
    for module in value if isinstance(value, list) else ():
        if isinstance(module, dict):
            kind, path = module.get("type"), module.get("path")
            if names_foreign(kind):
                yield str(kind)[:80]
            if isinstance(path, str) and path.rstrip("/") not in ("", ".") and not is_safe(path.rstrip("/")):
                yield path[:80]


def _digest(source: Source, name: str) -> str:
    file, digest = source.open(name), blake3()
    for part in ByteRange(0, file.size).chunks(CHUNK):
        digest.update(file.read(part))
    return digest.hexdigest()
