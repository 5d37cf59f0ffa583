"""Symbolic links in a model's folder: which are followed, and where the Hub cache keeps what its links lead to."""

from __future__ import annotations

import os
import re
from pathlib import Path

from gatenorm_stream.errors import CheckpointError
from gatenorm_stream.names import looks_secret

_DIGEST = re.compile(r"(sha256[-:])?[0-9a-f]{40}([0-9a-f]{24})?|SHA256E?-s\d+--[0-9a-f]{64}(\.\w+)*")
"""Names by content: blobs of the Hub cache, of Ollama and of git-annex."""
_CACHED = re.compile(r"models--[\w.-]+", re.ASCII)
"""The cache's folder of a model on the Hub."""


def homes(root: Path) -> tuple[Path, ...]:
    """Where links below `root` may lead without a question: itself; the cache's blobs if it lies in a snapshot."""
    home = root.resolve()
    above = (home, *home.parents)
    snapshot = next((p for p in above if p.parent.name == "snapshots" and _is_cached(p.parent.parent)), None)
    return (home, snapshot.parent.parent / "blobs") if snapshot else (home,)


def why_not_followed(path: Path, within: tuple[Path, ...], opened: os.stat_result | None = None) -> str:
    """Empty if a link may be followed to the plain file that it leads to.

    People link tokenizers and shards into their folders, and so did `hf download --local-dir`. But a folder may
    come from a stranger, whose links lead to what the user keeps elsewhere. So the file must belong to whoever owns
    the link, must not lie in a hidden folder or have the name of a secret, and must be of the kind that the link
    is; one that is named by its digest is somebody's store of such files. `opened` is the file that was
    opened by `path`: if another is there by now, that is said.
    """
    target = path.resolve()
    found = target.lstat()
    if opened and not os.path.samestat(found, opened):
        return "another file than the one that was opened"
    if any(target.is_relative_to(home) for home in within):
        return ""
    if found.st_uid != path.lstat().st_uid:
        return "a link to a file of another user"
    if _DIGEST.fullmatch(target.name) or (target.parent.name == "blobs" and _is_cached(target.parent.parent)):
        return ""
    if any(part.startswith(".") for part in target.parts) or looks_secret(target.name):
        return "a link to what may be a secret"
    if target.suffix.lower() != path.suffix.lower():
        return "a link to a file of another kind"
    return ""


def snapshot_in(folder: Path, revision: str | None) -> Path:
    """`folder` itself, unless it is the Hub cache's `models--org--name`: then the snapshot in it that is meant.

    Raises CheckpointError if that can't be told.
    """
    if folder.name == "snapshots" and _is_cached(folder.parent):
        folder = folder.parent
    snapshots = folder / "snapshots"
    if not _is_cached(folder) or not snapshots.is_dir():
        return folder
    there = sorted(p.name for p in snapshots.iterdir() if p.is_dir())
    wanted = named_commit(folder, revision)
    if wanted is None:
        wanted = there[0] if revision is None and len(there) == 1 else revision
    found = [name for name in there if wanted and name.startswith(wanted)]
    if len(found) != 1:
        which = f"{revision or 'main'} is not among them" if there else "there are none"
        raise CheckpointError(
            f"{folder} is a model's folder in the Hub cache, and which of its snapshots is meant can't be told "
            f"({which}); give one: {', '.join(str(snapshots / name) for name in there[:5]) or 'download it'}"
        )
    return snapshots / found[0]


def named_commit(folder: Path, revision: str | None) -> str | None:
    """The commit that `refs` in the Hub cache's folder of a model names so; None if it names none."""
    ref = folder / "refs" / (revision or "main")
    if not ref.is_file() or not ref.resolve().is_relative_to(folder.resolve()):
        return None
    with open(ref, encoding="ascii", errors="replace") as file:
        return file.read(100).strip()


def _is_cached(folder: Path) -> bool:
    return _CACHED.fullmatch(folder.name) is not None
