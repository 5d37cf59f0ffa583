"""Byte ranges of one file over HTTP, whatever the network does in between.

The Hub answers a file's address with the bytes, or with a redirect to a signed, expiring address at its storage
host. The token goes to the Hub alone. Every response must be exactly what was asked for, of the same version of the
file, or it is an error; what may pass is tried again, from the byte after the last one that came.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import CancelledError
from threading import Event
from typing import NoReturn
from urllib.parse import urljoin, urlsplit

from gatenorm_stream.errors import HubError
from gatenorm_stream.sources.hub.address import HubAddress
from gatenorm_stream.sources.hub.answers import Answer, answer
from gatenorm_stream.sources.hub.errors import hub_errors
from gatenorm_stream.sources.hub.retry import TRANSIENT_STATUS, Note, Patience, TransientError, retry_after
from gatenorm_stream.sources.ranges import ByteRange

_CONTENT_RANGE = re.compile(r"bytes (\d{1,20})-(\d{1,20})/(\d{1,20})")
REDIRECTS = (301, 302, 303, 307, 308)
MOST_REDIRECTS = 5


class RangeFetcher:
    """`url` is the file's address at the Hub, `etag` what the Hub says of its content, `size` its bytes."""

    def __init__(
        self, address: HubAddress, name: str, url: str, size: int, etag: str, note: Note, cancelled: Event
    ) -> None:
        self._address = address
        self._name = name
        self._url = url
        self._size = size
        self._etag = etag
        self._note = note
        self._cancelled = cancelled
        self._signed: str | None = None
        self._storage_etag: str | None = None

    def fetch(self, where: ByteRange) -> Iterator[bytes]:
        """The bytes of `where` in order, in blocks.

        Raises HubError if the server does not give them after several tries, or gives others than it should;
        CancelledError once the run is cancelled.
        """
        patience = Patience(self._name, self._note, self._cancelled)
        position = where.start
        while position < where.stop:
            try:
                for block in self._attempt(ByteRange(position, where.stop)):
                    patience.progressed()
                    position += len(block)
                    yield block
                    if self._cancelled.is_set():
                        raise CancelledError
            except TransientError as error:
                patience.failed(error)

    def _attempt(self, where: ByteRange) -> Iterator[bytes]:
        url = self._signed or self._url
        for _ in range(MOST_REDIRECTS):
            storage = not _same_origin(url, self._url)
            headers = {"Range": f"bytes={where.start}-{where.stop - 1}", "Accept-Encoding": "identity"}
            with answer(url, headers if storage else self._hub_headers() | headers, storage=storage) as got:
                if got.status in REDIRECTS:
                    url = self._redirected(url, got)
                    continue
                yield from self._body(url, got, where, storage=storage)
                return
        raise HubError(f"{self._name} is redirected more than {MOST_REDIRECTS} times; check HF_ENDPOINT")

    def _hub_headers(self) -> dict[str, str]:
        from huggingface_hub.utils._headers import build_hf_headers

        return build_hf_headers()

    def _redirected(self, url: str, got: Answer) -> str:
        linked = got.headers.get("x-linked-etag")
        if linked is not None and _plain(linked) != self._etag:
            self._changed("another version is there now")
        location = urljoin(url, got.headers.get("location", ""))
        if not _same_origin(location, self._url):
            self._signed = location
        return location

    def _body(self, url: str, got: Answer, where: ByteRange, *, storage: bool) -> Iterator[bytes]:
        if got.status in TRANSIENT_STATUS:
            raise TransientError(f"the server answered {got.status}", retry_after(got.headers))
        if got.status >= 400 and storage:
            if self._signed == url:
                self._signed = None
            raise TransientError(f"the storage host answered {got.status} (its address may have expired)", 0)
        if got.status == 416:
            self._changed("it is shorter now")
        if got.status not in (200, 206):
            self._refused(got)
        promised = self._checked(url, got, where, storage=storage)
        received = 0
        for block in got.blocks:
            received += len(block)
            if received > promised:
                self._changed("more bytes came than were announced")
            yield block
        if received < promised:
            raise TransientError("the answer broke off")

    def _checked(self, url: str, got: Answer, where: ByteRange, *, storage: bool) -> int:
        """How many bytes the response promises from the start of `where`; HTTP allows fewer than were asked for."""
        promised = len(where)
        if got.status == 200 and where != ByteRange(0, self._size):
            raise HubError(
                f"{urlsplit(url).hostname} ignores ranges and would send all of {self._name}; use another "
                "HF_ENDPOINT, or download the model first (`hf download`)"
            )
        if got.status == 206:
            given = got.headers.get("content-range", "")
            match = _CONTENT_RANGE.fullmatch(given)
            start, last, size = map(int, match.groups()) if match else (-1, -1, -1)
            if (start, size) != (where.start, self._size) or not start <= last < where.stop:
                asked = f"bytes {where.start}-{where.stop - 1}/{self._size}"
                self._changed(f"the server sent {given or 'no Content-Range'} for {asked}")
            promised = last + 1 - start
        if got.headers.get("content-encoding", "identity") != "identity":
            self._changed("it came encoded")
        length = got.headers.get("content-length", str(promised))
        if length != str(promised):
            self._changed(f"its Content-Length is {length}, not that of the range")
        etag = _plain(got.headers.get("etag", ""))
        if storage:
            self._storage_etag = self._storage_etag or etag
            if etag != self._storage_etag:
                self._changed("its ETag changed in between")
        elif etag and etag != self._etag:
            self._changed("its ETag is not the one the Hub gave")
        return promised

    def _changed(self, how: str) -> NoReturn:
        raise HubError(f"{self._name} of {self._address} is not what it was: {how}; nothing was used, run again")

    def _refused(self, got: Answer) -> NoReturn:
        from huggingface_hub import get_token
        from huggingface_hub.utils._http import hf_raise_for_status

        if got.response is not None:
            got.response.read()
            with hub_errors(self._address, logged_in=get_token() is not None):
                hf_raise_for_status(got.response)
        raise HubError(f"the Hub answered {got.status} for {self._name} of {self._address}")


def _same_origin(a: str, b: str) -> bool:
    return urlsplit(a)[:2] == urlsplit(b)[:2]


def _plain(etag: str) -> str:
    return etag.removeprefix("W/").strip('"')
