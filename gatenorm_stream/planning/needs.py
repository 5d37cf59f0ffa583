"""What a checkpoint's own files say that it needs: code that configs name, folders that modules.json names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import PurePosixPath
from typing import Any

from gatenorm_stream.checkpoint.foreign_code import names_foreign
from gatenorm_stream.checkpoint.json_text import parse_json
from gatenorm_stream.checkpoint.tensors import Checkpoint
from gatenorm_stream.errors import CheckpointError, HubError
from gatenorm_stream.names import is_hidden, is_safe
from gatenorm_stream.planning.travelling import Needs
from gatenorm_stream.sources.source import Source, read_whole

MODULES = "modules.json"
NAMING_CODE = (
    "tokenizer_config.json",
    "processor_config.json",
    "preprocessor_config.json",
    "image_processor_config.json",
    "video_preprocessor_config.json",
)
LARGEST = 1 << 20
"""Bytes of one such file; a larger one is taken to say nothing."""
MOST = 64
"""Files of code, and modules."""
_RELATIVE = re.compile(r"^\s*(?:from\s+\.([\w.]+)\s+import|import\s+\.([\w.]+)\s*$)", re.MULTILINE | re.ASCII)
_BESIDE = re.compile(r"^\s*from\s+\.\s+import\s+\(?([\w, ]+)", re.MULTILINE | re.ASCII)
_OWN = "sentence_transformers."
EMPTY_MODULES = ("Normalize", "Dropout")
"""They have no files."""


def read_needs(checkpoint: Checkpoint) -> Needs:
    """Files that can't be read say nothing. Raises HubError."""
    source, names = checkpoint.source, set(checkpoint.source.names())
    listed = _json(source, MODULES) if MODULES in names else None
    modules = [m for m in listed if isinstance(m, dict)][:MOST] if isinstance(listed, list) else []
    folders = tuple(dict.fromkeys(filter(None, map(_folder, modules))))
    configs: list[Any] = [checkpoint.config]
    if any(name.endswith(".py") for name in names):
        configs += [_json(source, name) for name in NAMING_CODE if name in names]
    named = [*_auto_map(configs), *_own_modules(modules)]
    return Needs(folders, tuple(_with_imports(source, names, named)))


def _folder(module: Mapping[str, Any]) -> str | None:
    path, kind = module.get("path"), module.get("type")
    if not isinstance(path, str):
        return None
    path = path.rstrip("/")
    if not is_safe(path) or is_hidden(path):
        return None
    return None if isinstance(kind, str) and kind.endswith(EMPTY_MODULES) else path


def _auto_map(configs: Iterable[Any]) -> Iterator[str]:
    """Files of the checkpoint itself: the code of other repositories is not here."""
    for config in configs:
        mapped = config.get("auto_map") if isinstance(config, Mapping) else None
        for value in mapped.values() if isinstance(mapped, Mapping) else ():
            for name in value if isinstance(value, list) else [value]:
                if isinstance(name, str) and not names_foreign(name):
                    yield f"{name.partition('.')[0]}.py"


def _own_modules(modules: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Classes that sentence-transformers loads from the checkpoint's own files."""
    for module in modules:
        kind = module.get("type")
        if isinstance(kind, str) and "." in kind and not names_foreign(kind) and not kind.startswith(_OWN):
            yield f"{kind.rpartition('.')[0].replace('.', '/')}.py"


def _with_imports(source: Source, names: set[str], named: Iterable[str]) -> Iterator[str]:
    """And the files that they import from beside them, as transformers fetches them. Nothing is run."""
    waiting, seen = [name for name in dict.fromkeys(named) if is_safe(name)], set[str]()
    while waiting and len(seen) < MOST:
        name = waiting.pop(0)
        if name in seen:
            continue
        seen.add(name)
        yield name
        if name in names:
            text = _text(source, name)
            imported = [a or b for a, b in _RELATIVE.findall(text)]
            imported += [part.strip() for group in _BESIDE.findall(text) for part in group.split(",")]
            beside = PurePosixPath(name).parent
            found = (
                f"{beside / module.strip('.').replace('.', '/')}.py" for module in imported if module.strip(".")
            )
            waiting += [path for path in found if is_safe(path) and path in names]


def _json(source: Source, name: str) -> Any:
    with suppress(ValueError):
        return parse_json(_text(source, name).encode("utf-8"))
    return None


def _text(source: Source, name: str) -> str:
    try:
        file = source.open(name)
        if file.size > LARGEST:
            return ""
        return read_whole(file).decode("utf-8", errors="replace")
    except HubError:
        raise
    except CheckpointError:
        return ""
