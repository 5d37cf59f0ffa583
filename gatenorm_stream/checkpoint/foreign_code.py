"""What in a JSON file would have an engine run code of another repository, and the same file without it.

A stock model that names such code loads safely as long as nobody says `trust_remote_code`. An output may need that
word for the one file that we add, so that it must not mean the code of strangers too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

ELSEWHERE = "--"
"""Stands between a repository and a file of it: org/name--file.Class."""
MAPS = ("auto_map", "custom_pipelines")
ALWAYS = ("custom_generate", "trust_remote_code", "use_kernels", "kernel_config")
"""Keys by which a file would choose for its reader that code is fetched and run."""
KERNELS = ("attn_implementation", "experts_implementation")
"""And the same with an underscore: org/name there is a repository of compiled code, which needs no trust at all."""
FILES = ("model_file",)
"""mlx-lm runs the Python file that it names."""


@dataclass(frozen=True)
class Cleaned:
    """`value` without what is `taken_out`: each as key, colon, what it named."""

    value: Any
    taken_out: tuple[str, ...]


def without_foreign_code(value: Any) -> Cleaned:
    """`value` is JSON as parsed, and stays as it is. What names code beside the file itself is kept."""
    taken_out: list[str] = []
    return Cleaned(_cleaned(value, taken_out), tuple(dict.fromkeys(taken_out)))


def names_foreign(reference: Any) -> bool:
    """Whether a class of `auto_map` is in another repository, or in a file that an absolute path names."""
    return any(ELSEWHERE in text or _is_absolute(text) for text in _texts(reference))


def _is_absolute(text: str) -> bool:
    return PurePosixPath(text).is_absolute() or bool(PureWindowsPath(text).anchor)


def _cleaned(value: Any, taken_out: list[str]) -> Any:
    if isinstance(value, list):
        return [_cleaned(inner, taken_out) for inner in value]
    if not isinstance(value, Mapping):
        return value
    kept = {}
    for key, inner in value.items():
        if key in MAPS and names_foreign(inner):
            inner = _own(inner, key, taken_out)
            if not inner:
                continue
        elif _runs(key, inner):
            taken_out.append(f"{key}: {_shown(inner)}")
            continue
        kept[key] = _cleaned(inner, taken_out)
    return kept


def _own(mapped: Any, key: str, taken_out: list[str]) -> Any:
    """What of it is the checkpoint's own code; of a pair of tokenizers, one may stay alone."""
    if isinstance(mapped, Mapping):
        found = {}
        for name, reference in mapped.items():
            if not names_foreign(reference):
                found[name] = reference
            elif left := _own(reference, f"{key}.{name}", taken_out):
                found[name] = left
        return found
    if isinstance(mapped, list):
        taken_out += (f"{key}: {_shown(part)}" for part in mapped if names_foreign(part))
        left = [None if names_foreign(part) else part for part in mapped]
        return left if any(left) else None
    taken_out.append(f"{key}: {_shown(mapped)}")
    return None


def _runs(key: str, value: Any) -> bool:
    if key in ALWAYS:
        return (bool(value) and not isinstance(value, int)) or value is True
    if key.removeprefix("_").removesuffix("_internal") in KERNELS:
        return any("/" in text for text in _texts(value))
    return key in FILES and any(text.endswith(".py") for text in _texts(value))


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | Mapping):
        inner: Iterable[Any] = value.values() if isinstance(value, Mapping) else value
        for part in inner:
            yield from _texts(part)


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) else str(value)
    return text if len(text) <= 80 else f"{text[:80]}…"
