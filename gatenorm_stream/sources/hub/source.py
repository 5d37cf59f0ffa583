"""A model repository at one commit, as a source of bytes; files that the Hub cache holds are read there."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from threading import Event, Lock

from gatenorm_stream.errors import CheckpointError, HubError
from gatenorm_stream.folder import Folder
from gatenorm_stream.names import is_hidden, is_safe
from gatenorm_stream.sources.hub.address import HubAddress
from gatenorm_stream.sources.hub.fetch import RangeFetcher
from gatenorm_stream.sources.hub.listing import Entry, list_repository
from gatenorm_stream.sources.hub.quantisation import with_file
from gatenorm_stream.sources.hub.retry import Note, Patience, TransientError, UnreachableError
from gatenorm_stream.sources.hub.spool import SpoolFile
from gatenorm_stream.sources.links import snapshot_in
from gatenorm_stream.sources.local import LocalFile, LocalSource
from gatenorm_stream.sources.ranges import ByteRange
from gatenorm_stream.sources.source import File, Kind, Source

DEFAULT_CONNECTIONS = 8


class HubFile:
    """Bytes of a file that is fetched by ranges; what is read is kept in `spool`, if there is one."""

    path = None

    def __init__(
        self, entry: Entry, address: HubAddress, commit: str, fetcher: RangeFetcher, spool: SpoolFile | None
    ) -> None:
        self.size = fetcher.size
        self.sha256 = entry.sha256
        self.title = f"{address.repository}/{entry.name}"
        self.identity = self.state = f"{fetcher.size} {entry.etag or commit}"
        self._fetcher = fetcher
        self.spool = spool

    def read(self, where: ByteRange) -> memoryview:
        if where.stop > self.size:
            raise CheckpointError(f"{self.title} ends before byte {where.stop}; run again")
        if self.spool is None:
            return self.fetch(where)
        for part, present in self.spool.segments(where):
            if not present:
                position = part.start
                for block in self._fetcher.fetch(part):
                    self.spool.write(position, block)
                    position += len(block)
                self.spool.add(part)
        return self.spool.local.read(where)

    def read_into(self, where: ByteRange, buffer: memoryview) -> None:
        buffer[:] = self.read(where)

    def expect(self, where: ByteRange) -> None:
        """Nothing is asked for ahead: the threads that read are as many as the connections."""

    def fetch(self, where: ByteRange) -> memoryview:
        content = bytearray(len(where))
        position = 0
        for block in self._fetcher.fetch(where):
            content[position : position + len(block)] = block
            position += len(block)
        return memoryview(content)

    def segments(self, where: ByteRange) -> Iterator[tuple[ByteRange, int | None]]:
        if self.spool is None:
            yield where, None
            return
        for part, present in self.spool.segments(where):
            yield part, self.spool.descriptor if present else None

    def check_unchanged(self) -> None:
        """A commit does not change; every response was checked as it came."""


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
        self.connections = connections
        self._address = address
        self._entries = entries
        self._note = note
        self._cancelled = Event()
        self._lock = Lock()
        self._open: dict[str, File] = {}
        self._spool: Folder | None = None

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
        return self._spool is not None

    def keep_in(self, folder: Folder) -> None:
        """From now on, what is read is kept in `folder`, and read there by a later run."""
        self._spool = folder
        for name, file in self._open.items():
            if isinstance(file, HubFile):
                file.spool = self._spooled(self._entries[name], file.size)

    def check_unchanged(self) -> None:
        for file in self._open.values():
            file.check_unchanged()

    def cancel(self) -> None:
        self._cancelled.set()

    def close(self) -> None:
        for file in self._open.values():
            if isinstance(file, LocalFile):
                file.close()
            elif isinstance(file, HubFile) and file.spool:
                file.spool.close()
        self._open.clear()
        if self._spool:
            self._spool.close()
            self._spool = None

    def _open_anew(self, name: str) -> File:
        from huggingface_hub import hf_hub_url, try_to_load_from_cache

        if name not in self._entries:
            raise CheckpointError(f"{self._address} has no {name}")
        cached = try_to_load_from_cache(self._address.repository, name, revision=self.revision)
        entry = self._entries[name]
        if isinstance(cached, str) and Path(cached).stat().st_size == (entry.size or Path(cached).stat().st_size):
            return LocalFile(Path(cached), sha256=entry.sha256)
        commit = self.revision
        url = hf_hub_url(self._address.repository, name, revision=commit)
        fetcher = RangeFetcher(self._address, name, url, entry.size, commit, self._note, self._cancelled)
        return HubFile(entry, self._address, commit, fetcher, self._spooled(entry, fetcher.size))

    def _spooled(self, entry: Entry, size: int) -> SpoolFile | None:
        if self._spool is None:
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
    from huggingface_hub import constants, try_to_load_from_cache

    if address.quantisation:
        folder = Path(constants.HF_HUB_CACHE, f"models--{address.repository.replace('/', '--')}")
        if not (folder / "snapshots").is_dir():
            return None
        held = LocalSource(snapshot_in(folder, address.revision))
        address, gguf = with_file(address, held.names())
    name = gguf[0] if gguf else "config.json"
    found = try_to_load_from_cache(address.repository, name, revision=address.revision)
    if not isinstance(found, str):
        return None
    snapshot = Path(found).parents[name.count("/")]
    title = f"{address.repository}:{address.file}" if address.file else address.repository
    return LocalSource(snapshot, title=title, revision=snapshot.name, gguf=gguf)
