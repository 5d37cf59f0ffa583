"""Whole files of a repository come into the Hub cache, in the places that huggingface_hub gives them there.

By our own requests: huggingface_hub begins a file anew after every interruption, compares no digest, and leaves
most repositories to a library (Xet) whose requests nothing here bounds.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import as_completed
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path, PurePosixPath
from threading import Event

from gatenorm_stream.disk import check_free, sync_file
from gatenorm_stream.errors import HubError, OutputError
from gatenorm_stream.folder import Folder
from gatenorm_stream.names import is_hidden, is_safe
from gatenorm_stream.sources.hub.address import HubAddress
from gatenorm_stream.sources.hub.cache_folder import CacheFolder, open_cache, unfinished
from gatenorm_stream.sources.hub.file import HubFile, fetch_to
from gatenorm_stream.sources.hub.listing import Entry
from gatenorm_stream.sources.hub.retry import Note
from gatenorm_stream.sources.hub.spool import SpoolFile
from gatenorm_stream.sources.local_file import LocalFile
from gatenorm_stream.sources.pieces import memory_for_pieces, pieces
from gatenorm_stream.sources.ranges import ByteRange
from gatenorm_stream.work import Progress, workers

ELSEWHERE = "set HF_HUB_CACHE to another place"
REQUEST = 4 << 20
BESIDE = frozenset({"", ".json", ".txt", ".md", ".model", ".jinja", ".py", ".tiktoken", ".spm", ".bpe", ".codes"})
"""Kinds of files that a model is used with: tokenizers, configs, licences."""
MOST_BESIDE, MOST_BYTES_BESIDE = 100, 128 << 20
"""So many of them, and so many bytes; what is beyond is fetched when it is read."""
_COMMIT = re.compile(r"[0-9a-f]{40}", re.ASCII)
_BLOB = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}", re.ASCII)


def repository_in_cache(repository: str) -> Path:
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE, f"models--{repository.replace('/', '--')}")


def beside_weights(entries: Iterable[Entry]) -> list[str]:
    """Names of the small files that a model is used with."""
    names, size = list[str](), 0
    for entry in sorted(entries, key=lambda e: (e.name.count("/"), e.name)):
        more = size + (entry.size or 0)
        wanted = PurePosixPath(entry.name).suffix in BESIDE and not is_hidden(entry.name)
        if wanted and more <= MOST_BYTES_BESIDE and len(names) < MOST_BESIDE:
            names, size = [*names, entry.name], more
    return names


class Cache:
    """The place of the repository at `address` in the Hub cache, at one commit."""

    def __init__(self, address: HubAddress, commit: str, note: Note) -> None:
        self._address, self._commit, self._note = address, commit, note
        self._home = repository_in_cache(address.repository)

    def can_hold(self, entry: Entry) -> bool:
        """Mirrors may list neither a commit nor digests, by which the cache names what it holds."""
        named = _COMMIT.fullmatch(self._commit) and _BLOB.fullmatch(entry.etag)
        return bool(named) and entry.size is not None and is_safe(entry.name)

    def fetch(
        self,
        files: Sequence[HubFile],
        connections: int,
        cancelled: Event,
        progress: Progress | None = None,
        *,
        tell: bool = True,
    ) -> None:
        """Each becomes a local file, one after the other, `connections` ranges of it at once. `tell` says so first.

        What an earlier run or huggingface_hub fetched is not fetched again. Raises OutputError if there is no room,
        HubError as `RangeFetcher.fetch` does, and for bytes that have not the digest that the Hub lists.
        """
        total, done = sum(file.size for file in files), 0

        def advance(count: int, name: str) -> None:
            nonlocal done
            done += count
            if progress:
                progress("fetching", done, total, name)

        if not files:
            return
        name = self._address.repository
        with self._writing(), open_cache(self._home) as folder:
            left = sum(file.size - folder.held(file.entry) for file in files)
            check_free(self._home, left, f"and what is to come of {name} takes", ELSEWHERE)
            if tell and left:
                size = f"{left / 1e9:.2f} GB" if left >= 1e9 else f"{left / 1e6:.0f} MB"
                self._note(f"to run {name}, {size} are fetched first, and stay in {self._home}")
            for file in files:
                self._fetch(folder, file, connections, cancelled, lambda n, name=file.entry.name: advance(n, name))  # type: ignore[misc]
            self._name_commit(folder)

    def _fetch(
        self,
        folder: CacheFolder,
        file: HubFile,
        connections: int,
        cancelled: Event,
        advance: Callable[[int], None],
    ) -> None:
        entry = file.entry
        waiting = partial(self._note, f"{file.title} is being fetched by another run; waiting for it")
        with folder.locked(entry, waiting):
            if folder.has(entry):
                advance(file.size)
            else:
                _fetch_blob(folder.blobs, file, connections, cancelled, advance)
            folder.point(self._commit, entry)
        file.local = LocalFile(self._home / "snapshots" / self._commit / entry.name, sha256=entry.sha256)

    def _name_commit(self, folder: CacheFolder) -> None:
        revision = self._address.revision or "main"
        if is_safe(revision) and not _COMMIT.fullmatch(revision):
            folder.name_commit(revision, self._commit)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise OutputError(f"{self._home} can't be written: {error.strerror}; {ELSEWHERE}") from error


def _fetch_blob(
    blobs: Folder, file: HubFile, connections: int, cancelled: Event, advance: Callable[[int], None]
) -> None:
    blob, name = file.entry.etag, unfinished(file.entry)
    if (found := blobs.found(blob)) and stat.S_ISDIR(found.st_mode):
        raise OutputError(f"{blobs.path / blob} is a directory, where a file belongs; delete it")
    with closing(SpoolFile(blobs, name, file.size)) as spool:
        file.beginnings.pour(file.entry.name, spool)
        _fill(spool, file, connections, cancelled, advance)
        sound = _is_sound(spool.local, file.entry)
        if sound:
            sync_file(spool.descriptor, blobs.path / name)
    blobs.unlink(f"{name}.ranges")
    if not sound:
        blobs.unlink(name)
        raise HubError(
            f"{file.title} came damaged: its digest is not the Hub's; run the same command again, it fetches that "
            "file again"
        )
    os.replace(name, blob, src_dir_fd=blobs.handle, dst_dir_fd=blobs.handle)


def _fill(
    spool: SpoolFile, file: HubFile, connections: int, cancelled: Event, advance: Callable[[int], None]
) -> None:
    """Fetches what is not there, so many ranges at once."""
    whole = list(spool.segments(ByteRange(0, file.size)))
    advance(sum(len(part) for part, present in whole if present))
    left = [part for segment, present in whole if not present for part in segment.chunks(REQUEST)]
    with workers(connections, cancelled.set) as pool:
        tasks = {pool.submit(fetch_to, spool, file.fetcher, part): part for part in left}
        for task in as_completed(tasks):
            task.result()
            advance(len(tasks[task]))


def _is_sound(file: LocalFile, entry: Entry) -> bool:
    """By its SHA-256; a small file's name is its git object id, the SHA-1 of its size and its bytes."""
    digest = hashlib.sha256() if entry.sha256 else hashlib.sha1(b"blob %d\0" % file.size)
    for piece in pieces(file, ByteRange(0, file.size), memory_for_pieces()):
        digest.update(piece)
    return digest.hexdigest() == entry.etag
