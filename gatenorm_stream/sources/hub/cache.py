"""Whole files of a repository come into the Hub cache, in the places that huggingface_hub gives them there.

By our own requests: huggingface_hub begins a file anew after every interruption, compares no digest, and leaves
most repositories to a library (Xet) whose requests nothing here bounds.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import as_completed
from contextlib import closing, contextmanager
from pathlib import Path, PurePosixPath
from threading import Event
from typing import TextIO

from gatenorm_stream.disk import UNSUPPORTED, check_free, sync_file
from gatenorm_stream.errors import HubError, OutputError
from gatenorm_stream.folder import open_folder
from gatenorm_stream.names import is_hidden, is_safe
from gatenorm_stream.sources.hub.address import HubAddress
from gatenorm_stream.sources.hub.file import HubFile, fetch_to
from gatenorm_stream.sources.hub.listing import Entry
from gatenorm_stream.sources.hub.retry import Note
from gatenorm_stream.sources.hub.spool import SpoolFile
from gatenorm_stream.sources.local import LocalFile
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
        with self._writing():
            (self._home / "blobs").mkdir(parents=True, exist_ok=True)
            left, name = sum(file.size - self._held(file.entry) for file in files), self._address.repository
            check_free(self._home, left, f"and what is to come of {name} takes", ELSEWHERE)
            if tell and left:
                size = f"{left / 1e9:.2f} GB" if left >= 1e9 else f"{left / 1e6:.0f} MB"
                self._note(f"to run {name}, {size} are fetched first, and stay in {self._home}")
            for file in files:
                self._fetch(file, connections, cancelled, lambda n, name=file.entry.name: advance(n, name))  # type: ignore[misc]
            self._name_commit()

    def _fetch(self, file: HubFile, connections: int, cancelled: Event, advance: Callable[[int], None]) -> None:
        entry = file.entry
        blob = self._home / "blobs" / entry.etag
        locks = self._home.parent / ".locks" / self._home.name
        locks.mkdir(parents=True, exist_ok=True)
        with open(locks / f"{entry.etag}.lock", "a") as lock:
            self._wait_for(lock, file.title)
            if _size(blob) == entry.size:
                advance(file.size)
            else:
                self._fetch_blob(file, blob, connections, cancelled, advance)
            self._point(entry, blob)
        file.local = LocalFile(self._home / "snapshots" / self._commit / entry.name, sha256=entry.sha256)

    def _wait_for(self, lock: TextIO, title: str) -> None:
        """The lock that huggingface_hub takes, too."""
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._note(f"{title} is being fetched by another run; waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in UNSUPPORTED:
                raise

    def _fetch_blob(
        self, file: HubFile, blob: Path, connections: int, cancelled: Event, advance: Callable[[int], None]
    ) -> None:
        unfinished = _unfinished(file.entry)
        with open_folder(blob.parent) as blobs:
            with closing(SpoolFile(blobs, unfinished, file.size)) as spool:
                file.beginnings.pour(file.entry.name, spool)
                _fill(spool, file, connections, cancelled, advance)
                sound = _is_sound(spool.local, file.entry, cancelled)
                if sound:
                    sync_file(spool.descriptor, blob)
            blobs.unlink(f"{unfinished}.ranges")
            if not sound:
                blobs.unlink(unfinished)
                raise HubError(
                    f"{file.title} came damaged: its digest is not the Hub's; run the same command again, it "
                    "fetches that file again"
                )
            os.replace(unfinished, blob.name, src_dir_fd=blobs.handle, dst_dir_fd=blobs.handle)

    def _point(self, entry: Entry, blob: Path) -> None:
        """A link from the snapshot; where there are no links, the file itself."""
        snapshot = self._home / "snapshots" / self._commit
        name = snapshot / entry.name
        if _size(name) == entry.size:
            return
        name.parent.mkdir(parents=True, exist_ok=True)
        name.unlink(missing_ok=True)
        up = "../" * (len(PurePosixPath(entry.name).parts) + 1)
        try:
            name.symlink_to(f"{up}blobs/{blob.name}")
        except OSError:
            os.replace(blob, name)

    def _name_commit(self) -> None:
        """So that the branch or tag that was asked for is found where there is no network."""
        revision = self._address.revision or "main"
        if _COMMIT.fullmatch(revision) or not is_safe(revision):
            return
        ref = self._home / "refs" / revision
        ref.parent.mkdir(parents=True, exist_ok=True)
        fresh = ref.with_name(f"{ref.name}.{os.getpid()}.tmp")
        fresh.write_text(self._commit)
        os.replace(fresh, ref)

    def _held(self, entry: Entry) -> int:
        """Bytes of it that take room already."""
        blobs = self._home / "blobs"
        if _size(blobs / entry.etag) == entry.size:
            return entry.size or 0
        try:
            return min((blobs / _unfinished(entry)).stat().st_blocks * 512, entry.size or 0)
        except OSError:
            return 0

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise OutputError(f"{self._home} can't be written: {error.strerror}; {ELSEWHERE}") from error


def _unfinished(entry: Entry) -> str:
    return f"{entry.etag}.gatenorm.incomplete"


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None


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


def _is_sound(file: LocalFile, entry: Entry, cancelled: Event) -> bool:
    """By its SHA-256; a small file's name is its git object id, the SHA-1 of its size and its bytes."""
    digest = hashlib.sha256() if entry.sha256 else hashlib.sha1(b"blob %d\0" % file.size)
    for piece in pieces(file, ByteRange(0, file.size), memory_for_pieces()):
        digest.update(piece)
    return digest.hexdigest() == entry.etag
