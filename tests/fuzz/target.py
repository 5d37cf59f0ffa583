"""What a target of the fuzzer is, and what several of them ask of a folder."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from hypothesis import strategies as st


@dataclass(frozen=True)
class Target:
    """`check` acts on one case; `mutants` gives cases by mutation, `strategy` structured ones if there are any."""

    name: str
    share: float
    check: Callable[[bytes], None]
    mutants: Callable[[random.Random], bytes]
    strategy: st.SearchStrategy[bytes] | None = None


Tree = Mapping[str, bytes]
"""What is below a folder, by relative path: a file's content, a link's way, or what else it is."""


def number(rng: random.Random) -> bytes:
    """A case that is nothing but the seed of one."""
    return rng.randbytes(8)


def tree(root: Path) -> Tree:
    return dict(_below(str(root), ""))


def _below(folder: str, above: str) -> Iterator[tuple[str, bytes]]:
    with suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            name = above + entry.name
            if entry.is_symlink():
                yield name, b"link " + os.fsencode(os.readlink(entry.path))
            elif entry.is_dir():
                yield name, b"folder"
                yield from _below(entry.path, name + "/")
            elif entry.is_file():
                with open(entry.path, "rb") as file:
                    yield name, file.read()
            else:
                yield name, b"no file"


def put_back(root: Path, files: Tree) -> None:
    """Nothing but the plain files and folders of `files`."""
    remove(root)
    root.mkdir()
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir(exist_ok=True) if content == b"folder" else path.write_bytes(content)


def remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
