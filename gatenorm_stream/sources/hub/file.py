"""A file of a repository: fetched by ranges, kept in a spool or not, and a local file once it is here whole."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from gatenorm_stream.errors import CheckpointError
from gatenorm_stream.sources.hub.address import HubAddress
from gatenorm_stream.sources.hub.beginnings import Beginnings
from gatenorm_stream.sources.hub.fetch import RangeFetcher
from gatenorm_stream.sources.hub.listing import Entry
from gatenorm_stream.sources.hub.spool import SpoolFile
from gatenorm_stream.sources.local_file import LocalFile
from gatenorm_stream.sources.ranges import ByteRange


class HubFile:
    """What is read is kept in `spool`, if there is one, and a header until then in `beginnings`.

    `local` is the whole file, once that is here.
    """

    def __init__(
        self,
        entry: Entry,
        address: HubAddress,
        commit: str,
        fetcher: RangeFetcher,
        spool: SpoolFile | None,
        beginnings: Beginnings,
    ) -> None:
        self.entry = entry
        self.size = fetcher.size
        self.sha256 = entry.sha256
        self.fetcher = fetcher
        self.spool = spool
        self.beginnings = beginnings
        self.local: LocalFile | None = None
        self._title = f"{address.repository}/{entry.name}"
        self._version = f"{fetcher.size} {entry.etag or commit}"

    @property
    def title(self) -> str:
        return self.local.title if self.local else self._title

    @property
    def path(self) -> Path | None:
        return self.local.path if self.local else None

    @property
    def identity(self) -> str:
        return self.local.identity if self.local else self._version

    @property
    def state(self) -> str:
        return self.local.state if self.local else self._version

    def read(self, where: ByteRange) -> memoryview:
        if where.stop > self.size:
            raise CheckpointError(f"{self.title} ends before byte {where.stop}; run again")
        if self.local:
            return self.local.read(where)
        if self.spool is None:
            return self._read_unkept(where)
        for part, present in self.spool.segments(where):
            if not present:
                fetch_to(self.spool, self.fetcher, part)
        return self.spool.local.read(where)

    def _read_unkept(self, where: ByteRange) -> memoryview:
        if held := self.beginnings.read(self.entry.name, where):
            return held
        content = self.fetch(where)
        self.beginnings.keep(self.entry.name, where, content)
        return content

    def read_into(self, where: ByteRange, buffer: memoryview) -> None:
        if self.local:
            self.local.read_into(where, buffer)
        else:
            buffer[:] = self.read(where)

    def expect(self, where: ByteRange) -> None:
        """Nothing is asked for ahead: the threads that read are as many as the connections."""
        if self.local:
            self.local.expect(where)

    def fetch(self, where: ByteRange) -> memoryview:
        if self.local:
            return self.local.read(where)
        content = bytearray(len(where))
        position = 0
        for block in self.fetcher.fetch(where):
            content[position : position + len(block)] = block
            position += len(block)
        return memoryview(content)

    def segments(self, where: ByteRange) -> Iterator[tuple[ByteRange, int | None]]:
        if self.local:
            yield from self.local.segments(where)
            return
        if self.spool is None:
            yield where, None
            return
        for part, present in self.spool.segments(where):
            yield part, self.spool.descriptor if present else None

    def check_unchanged(self) -> None:
        """A commit does not change; every response was checked as it came."""
        if self.local:
            self.local.check_unchanged()

    def close(self) -> None:
        if self.local:
            self.local.close()
        if self.spool:
            self.spool.close()


def fetch_to(spool: SpoolFile, fetcher: RangeFetcher, part: ByteRange) -> None:
    """What came before an error or the end of the run is kept, too.

    Raises as `RangeFetcher.fetch` and `SpoolFile.write` do.
    """
    position = part.start
    try:
        for block in fetcher.fetch(part):
            spool.write(position, block)
            position += len(block)
    finally:
        if position > part.start:
            spool.add(ByteRange(part.start, position))
