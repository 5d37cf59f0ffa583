"""A model repository at one commit, as a source of bytes; files that the Hub cache holds are read there."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from threading import Event, Lock

from gatenorm_stream.errors import CheckpointError, HubError
from gatenorm_stream.folder import Folder
from gatenorm_stream.names import is_hidden, is_safe
from gatenorm_stream.sources.hub.address import HubAddress
from gatenorm_stream.sources.hub.beginnings import Beginnings
from gatenorm_stream.sources.hub.cache import Cache, beside_weights, repository_in_cache
from gatenorm_stream.sources.hub.fetch import RangeFetcher
from gatenorm_stream.sources.hub.file import HubFile
from gatenorm_stream.sources.hub.listing import Entry, list_repository
from gatenorm_stream.sources.hub.quantisation import with_file
from gatenorm_stream.sources.hub.retry import Note, Patience, TransientError, UnreachableError
from gatenorm_stream.sources.hub.spool import SpoolFile
from gatenorm_stream.sources.links import homes, named_commit, snapshot_in
from gatenorm_stream.sources.local import LocalSource, open_in
from gatenorm_stream.sources.local_file import LocalFile
from gatenorm_stream.sources.source import File, Kind, Source
from gatenorm_stream.work import Progress, available_threads

DEFAULT_CONNECTIONS = 8


class HubSource:
    """The files of `address` at `commit`."""

    directory = None
    remote = True

    def __init__(
        self,
        address: HubAddress,
        commit: str,
        entries: Mapping[str, Entry],
        connections: int,
        note: Note,
        gguf: tuple[str, ...] = (),
        apart: Mapping[str, str] | None = None,
    ) -> None:
        self._apart = apart or {}
        self.title = f"{address.repository}:{address.file}" if address.file else address.repository
        self.gguf = gguf
        self.kind = Kind.GGUF if gguf else Kind.SAFETENSORS
        self.revision = commit
        self._connections = connections
        self._address = address
        self._entries = entries
        self._note = note
        self._cancelled = Event()
        self._lock = Lock()
        self._open: dict[str, LocalFile | HubFile] = {}
        self._spool: Folder | None = None
        self._beginnings = Beginnings()
        self._keeps = self._whole = False

    @property
    def connections(self) -> int:
        return available_threads() if self._whole else self._connections

    def names(self) -> tuple[str, ...]:
        """Hidden ones left out."""
        return tuple(sorted(name for name in self._entries if not is_hidden(name)))

    def apart(self) -> Mapping[str, str]:
        return self._apart

    def open(self, name: str) -> File:
        with self._lock:
            if name not in self._open:
                self._open[name] = self._open_anew(name)
            return self._open[name]

    @property
    def keeps(self) -> bool:
        return self._keeps

    def keep_in(self, folder: Folder | None) -> None:
        self._keeps, self._spool = True, folder
        for file in self._open.values():
            if isinstance(file, HubFile):
                file.spool = self._spooled(file.entry, file.size)
                if file.spool and not folder:  # one that stays starts over if it holds some of a damaged file
                    self._beginnings.pour(file.entry.name, file.spool)

    def fetch_whole(self, names: Iterable[str], progress: Progress | None = None) -> bool:
        cache, names = Cache(self._address, self.revision, self._note), list(names)
        holdable = {name: entry for name, entry in self._entries.items() if cache.can_hold(entry)}
        if not holdable.keys() >= set(names):
            return False
        files = map(self.open, dict.fromkeys([*names, *beside_weights(holdable.values())]))
        missing = [file for file in files if isinstance(file, HubFile) and not file.local]
        cache.fetch(missing, self._connections, self._cancelled, progress, tell=bool(names))
        if names:
            self._keeps = self._whole = True
        return True

    def check_unchanged(self) -> None:
        for file in self._open.values():
            file.check_unchanged()

    def cancel(self) -> None:
        self._cancelled.set()

    def close(self) -> None:
        for file in self._open.values():
            file.close()
        self._open.clear()
        if self._spool:
            self._spool.close()
            self._spool = None

    def _open_anew(self, name: str) -> LocalFile | HubFile:
        from huggingface_hub import hf_hub_url

        if name not in self._entries:
            raise CheckpointError(f"{self._address} has no {name}")
        entry = self._entries[name]
        if cached := self._cached(entry):
            return cached
        commit = self.revision
        url = hf_hub_url(self._address.repository, name, revision=commit)
        fetcher = RangeFetcher(self._address, name, url, entry.size, commit, self._note, self._cancelled)
        spool = self._spooled(entry, fetcher.size)
        return HubFile(entry, self._address, commit, fetcher, spool, self._beginnings)

    def _cached(self, entry: Entry) -> LocalFile | None:
        """A file of the cache's snapshot; none if it is a link to somewhere else, or of another size."""
        snapshot = repository_in_cache(self._address.repository) / "snapshots" / self.revision
        path = snapshot / entry.name
        if not path.is_file():
            return None
        try:
            file = LocalFile(path, open_in(snapshot, path, homes(snapshot)), sha256=entry.sha256)
        except (CheckpointError, OSError):
            return None
        if entry.size and file.size != entry.size:
            file.close()
            return None
        return file

    def _spooled(self, entry: Entry, size: int) -> SpoolFile | None:
        if not self._keeps:
            return None
        told = f"{self.title} {entry.name} {entry.etag or self.revision}"
        return SpoolFile(self._spool, hashlib.sha256(told.encode()).hexdigest()[:32], size)


def open_repository(address: HubAddress, connections: int, note: Note, gguf: tuple[str, ...] = ()) -> Source:
    """Resolves `address` to one commit. A snapshot in the Hub cache is used if the Hub must not or can't be asked.

    `gguf` are the files of it that are the model, none for a safetensors checkpoint. Raises HubError if there is
    neither the Hub nor a snapshot, or one of the files is not there.
    """
    from huggingface_hub import constants

    patience = Patience(str(address), note, Event())
    while True:
        try:
            listing = list_repository(address)
            break
        except UnreachableError as error:
            if snapshot := _cached_snapshot(address, gguf):
                note(f"{error}; using the snapshot in the Hub cache")
                return snapshot
            patience.failed(error)
        except TransientError as error:
            patience.failed(error)
        except HubError:
            if constants.HF_HUB_OFFLINE and (snapshot := _cached_snapshot(address, gguf)):
                return snapshot
            raise
    entries = {entry.name: entry for entry in listing.entries}
    apart = {name: "no name for a file of an output" for name in entries if not is_safe(name)}
    entries = {name: entry for name, entry in entries.items() if name not in apart}
    if address.quantisation:
        address, gguf = with_file(address, entries)
    if missing := next((name for name in gguf if name not in entries), None):
        there = ", ".join(sorted(name for name in entries if name.endswith(".gguf"))) or "none"
        raise HubError(f"{address} has no {missing}; its GGUF files: {there}")
    return HubSource(address, listing.commit, entries, connections, note, gguf, apart)


def _cached_snapshot(address: HubAddress, gguf: tuple[str, ...]) -> Source | None:
    folder = repository_in_cache(address.repository)
    if not (folder / "snapshots").is_dir():
        return None
    if address.quantisation:
        held = LocalSource(snapshot_in(folder, address.revision))
        address, gguf = with_file(address, held.names())
    name = gguf[0] if gguf else "config.json"
    commit = named_commit(folder, address.revision) or address.revision
    if not commit or not is_safe(commit):
        return None
    snapshot = folder / "snapshots" / commit
    if not (snapshot / name).is_file():
        return None
    title = f"{address.repository}:{address.file}" if address.file else address.repository
    return LocalSource(snapshot, title=title, revision=snapshot.name, gguf=gguf)
