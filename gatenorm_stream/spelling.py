"""What someone may have meant."""

from __future__ import annotations

import os
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path


def similar(word: str, among: Iterable[str]) -> str | None:
    """The one of `among` that is most like `word`, if one is much like it; never `word` itself."""
    others: dict[str, str] = {}
    for other in among:
        if other != word:
            others.setdefault(other.lower(), other)
    found = get_close_matches(word.lower(), others, n=1, cutoff=0.7)
    return others[found[0]] if found else None


def did_you_mean(path: str | os.PathLike[str]) -> str:
    """The end of a message about a path that is not there; empty if nothing like it is."""
    meant = None if os.path.exists(path) else similar_path(path)
    return f"; did you mean {meant}?" if meant else ""


def similar_path(path: str | os.PathLike[str]) -> str | None:
    """An entry of the same directory with a name much like that of `path`, or the same but for .gguf."""
    folder, name = os.path.split(os.fspath(path).rstrip("/"))
    try:
        names = sorted(n for n in os.listdir(folder or ".") if not n.startswith("."))
    except OSError:
        return None
    found = f"{name}.gguf" if f"{name}.gguf" in names else similar(name, names)
    return str(Path(folder, found)) if found else None
