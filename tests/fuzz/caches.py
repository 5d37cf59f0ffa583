"""The Hub cache while a model that is run comes into it, from a hostile Hub: what lies there already, what is there
afterwards.
"""

from __future__ import annotations

import hashlib
import os
import random
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from unittest.mock import patch

from huggingface_hub import constants

from gatenorm_stream.checkpoint.safetensors import open_checkpoint
from gatenorm_stream.disk import boot_id
from gatenorm_stream.measuring.kept import keep, keep_small_files
from gatenorm_stream.sources.open import open_source
from gatenorm_stream.sources.ranges import ByteRange
from tests.fuzz.cut_off import CutError, cut_after
from tests.fuzz.mutate import mutate
from tests.fuzz.target import Tree, remove, tree
from tests.fuzz.watch import FindingError, Watch

HOME = "models--org--name"
_DIGEST = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
Spoil = Callable[[random.Random, float], list[str]]


def git_digest(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def digest(name: str, content: bytes) -> str:
    """By which the Hub lists a file."""
    return hashlib.sha256(content).hexdigest() if name.endswith(".safetensors") else git_digest(content)


class Caches:
    """In a folder: `cache`, and `mine`, which is the user's. `spoil` says which share of answers is spoilt."""

    def __init__(self, root: Path, watch: Watch, files: Mapping[str, bytes], commit: str, spoil: Spoil) -> None:
        self._watch, self._files, self._commit, self._spoil = watch, files, commit, spoil
        self._cache, self._mine = root / "cache", root / "mine"
        (self._mine / "folder").mkdir(parents=True)
        (self._mine / ".ssh").mkdir()
        for name in ("thesis", ".ssh/config.json"):
            (self._mine / name).write_bytes(b"mine")
        self._kept = tree(self._mine)
        self._run(1 << 30, sound=True)
        remove(self._cache)

    def cache(self, data: bytes) -> None:
        """A model that is run comes into a cache that has something already; then again, from an honest Hub,
        and without one.

        What is wrong in a half of a file is found with the other half: then the second honest run has to do.
        """
        rng = random.Random(data)
        broken = self._spoil(rng, 0.0)
        planted = self._lay(rng)
        before = tree(self._cache)
        self._watch.permit(self._cache, Path("org"))
        try:
            for share in (rng.choice((0.0, 0.02, 0.1, 0.5)), 0.0, 0.0):
                broken = self._spoil(rng, share)
                error = self._watch.case(partial(self._run, 1 << 30, sound=not share and not planted))
                if broken:
                    raise FindingError(broken[0])
                if tree(self._mine) != self._kept:
                    raise FindingError("what is outside was changed")
                judge_blobs(before, tree(self._cache))
            with patch.object(constants, "HF_HUB_OFFLINE", True):
                error = self._watch.case(partial(self._run, 1 << 30, sound=not planted)) or error
            if error and not planted:
                raise FindingError(f"after a hostile Hub, an honest one or what it left is refused: {error}")
        finally:
            self._spoil(rng, 0.0)
            remove(self._cache)

    def _lay(self, rng: random.Random) -> list[str]:
        """Nothing, what a run left that was cut off, or a whole cache; then what is planted: its names."""
        if most := rng.choice((0, 1, 3, 5, 9, 1 << 30)):
            self._run(most, sound=True)
        self._cache.mkdir(exist_ok=True)
        times = rng.choice((0, 1, 1, 2, 4))
        return [plant(self._cache, self._mine, self._commit, self._files, rng) for _ in range(times)]

    def _run(self, most: int, *, sound: bool) -> None:
        """All weights come, as before a run, and are read; cut off after `most` reports of progress."""
        with suppress(CutError), open_checkpoint(open_source("org/name", connections=1)) as checkpoint:
            keep_small_files(checkpoint)
            keep(checkpoint, cut_after(most))
            for shard in checkpoint.shards:
                content = bytes(shard.file.read(ByteRange(0, shard.file.size)))
                if sound and content != self._files[shard.name]:
                    raise FindingError(f"{shard.name} is another than the Hub's")


def plant(cache: Path, mine: Path, commit: str, files: Mapping[str, bytes], rng: random.Random) -> str:
    """Something in the place of anything that the cache has, or could have, of these files: its name there."""
    there = sorted(p.relative_to(cache).as_posix() for p in cache.rglob("*"))
    name = rng.choice([*_names(commit, files), *(n for n in there if n != HOME)])  # HOME may lead to another disk
    path = cache / name
    above = [each for each in path.parents if each.is_relative_to(cache)]
    if any(each.is_symlink() or (each.exists() and not each.is_dir()) for each in above):
        return name
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_symlink():
        path.unlink()
    content = path.read_bytes() if path.is_file() else rng.choice(sorted(files.values()))
    remove(path)
    match rng.randrange(9):
        case 0 | 1:
            path.symlink_to(mine / rng.choice(["thesis", "folder", "new", ".ssh/config.json"]))
        case 2:
            os.link(mine / "thesis", path)
        case 3:
            os.mkfifo(path)
        case 4:
            (path / "x").mkdir(parents=True)
        case 5:
            path.symlink_to(rng.choice(["/dev/zero", path.name, "..", "nowhere"]))
        case 6:
            path.write_bytes(mutate(rng, content, [content]))
        case 7:
            path.write_bytes(content[: rng.randrange(len(content) + 1)])
        case _:
            size = rng.choice([len(content), 1 << 40, 7])
            path.write_text(f"0 {size} {boot_id()}\n" if name.endswith(".ranges") else "0" * len(content))
    return name


def _names(commit: str, files: Mapping[str, bytes]) -> Iterator[str]:
    yield from (f"{HOME}/{each}" for each in ("blobs", "snapshots", f"snapshots/{commit}", "refs", "refs/main"))
    yield from (".locks", f".locks/{HOME}", f"{HOME}/refs/main.{os.getpid()}.tmp")
    for name, content in files.items():
        blob = f"{HOME}/blobs/{digest(name, content)}"
        yield from (blob, f"{blob}.gatenorm.incomplete", f"{blob}.gatenorm.incomplete.ranges")
        yield from (f"{HOME}/snapshots/{commit}/{name}", f".locks/{HOME}/{digest(name, content)}.lock")


def judge_blobs(before: Tree, after: Tree) -> None:
    """Raises FindingError if a blob came to be whose content is not that of its name."""
    for path, content in after.items():
        above, _, name = path.rpartition("/")
        came = above.endswith("blobs") and _DIGEST.fullmatch(name) and before.get(path) != content
        if came and name not in (hashlib.sha256(content).hexdigest(), git_digest(content)):
            raise FindingError(f"a blob came to be whose content is another: {path}")
