"""Byte ranges of one file over HTTP, whatever the network does in between.

The Hub answers a file's address with the bytes, or with a redirect to a signed, expiring address at its storage
host. The token goes to the Hub alone. Every response must be exactly what was asked for, of the same version of the
file, or it is an error; what may pass is tried again, from the byte after the last one that came.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager
from threading import Event
from typing import NoReturn
from urllib.parse import urljoin, urlsplit

from gatenorm_stream.errors import HubError
from gatenorm_stream.sources.hub.address import HubAddress
from gatenorm_stream.sources.hub.answers import Answer, answer
from gatenorm_stream.sources.hub.errors import hub_errors, raise_for_status
from gatenorm_stream.sources.hub.guard import check_step, hub_headers, origin
from gatenorm_stream.sources.hub.retry import TRANSIENT_STATUS, Note, Patience, TransientError, wait_told
from gatenorm_stream.sources.ranges import ByteRange

_CONTENT_RANGE = re.compile(r"bytes (\d{1,20})-(\d{1,20})/(\d{1,20})")
REDIRECTS = (301, 302, 303, 307, 308)
MOST_REDIRECTS = 5


class RangeFetcher:
    """`url` is the file's address at the Hub, at one commit; `size` its bytes, asked for if the Hub did not say.

    A commit does not change, so an ETag tells nothing but that the answers are of one version: mirrors make their
    own. The first one of each kind must stay.
    """

    def __init__(
        self, address: HubAddress, name: str, url: str, size: int | None, commit: str, note: Note, cancelled: Event
    ) -> None:
        self._address = address
        self._name = name
        self._url = url
        self._commit = commit
        self._note = note
        self._cancelled = cancelled
        self._signed: str | None = None
        self._etags: dict[str, str] = {}
        self.size = self._asked_size() if size is None else size

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
                    patience.progressed(len(block))
                    position += len(block)
                    yield block
                    if self._cancelled.is_set():
                        raise CancelledError
            except TransientError as error:
                patience.failed(error)

    def _asked_size(self) -> int:
        """What a request for the first byte says of the whole file."""
        patience = Patience(self._name, self._note, self._cancelled)
        while True:
            try:
                with self._answered(ByteRange(0, 1)) as (url, got, storage):
                    told = got.headers.get("content-range", "").rpartition("/")[2]
                    if got.status == 200:
                        told = got.headers.get("content-length", "")
                    elif got.status not in (206, 416):
                        self._failed(url, got, storage=storage)
                if re.fullmatch(r"\d{1,20}", told, re.ASCII):
                    return int(told)
                raise HubError(
                    f"{urlsplit(url).hostname} does not say how large {self._name} is; use another HF_ENDPOINT, or "
                    "download the model first (`hf download`)"
                )
            except TransientError as error:
                patience.failed(error)

    def _attempt(self, where: ByteRange) -> Iterator[bytes]:
        with self._answered(where) as (url, got, storage):
            yield from self._body(url, got, where, storage=storage)

    @contextmanager
    def _answered(self, where: ByteRange) -> Iterator[tuple[str, Answer, bool]]:
        """The address that answered, its answer, and whether it is the storage host's."""
        url = self._signed or self._url
        for _ in range(MOST_REDIRECTS):
            storage = not _same_origin(url, self._url)
            headers = {"Range": f"bytes={where.start}-{where.stop - 1}", "Accept-Encoding": "identity"}
            with answer(url, headers if storage else hub_headers() | headers, storage=storage) as got:
                if got.status not in REDIRECTS:
                    yield url, got, storage
                    return
                url = self._redirected(url, got)
        raise HubError(f"{self._name} is redirected more than {MOST_REDIRECTS} times; check HF_ENDPOINT")

    def _redirected(self, url: str, got: Answer) -> str:
        import httpx2

        self._check_version("x-linked-etag", got, "x-linked-etag")
        try:
            location = urljoin(url, self._below_endpoint(got.headers.get("location", "")))
            origin(location)
            httpx2.URL(location)
        except (ValueError, httpx2.InvalidURL) as error:
            raise HubError(f"{self._name} is redirected to what is no address; check HF_ENDPOINT") from error
        check_step(url, location)
        if not _same_origin(location, self._url):
            self._signed = location
        return location

    def _below_endpoint(self, location: str) -> str:
        """The Hub names its own paths from the root; a mirror that stands below a path may pass them on."""
        from huggingface_hub import constants

        prefix = urlsplit(constants.ENDPOINT).path.rstrip("/")
        return f"{prefix}{location}" if prefix and location.startswith("/api/resolve-cache/") else location

    def _check_version(self, header: str, got: Answer, kind: str) -> None:
        commit, etag = got.headers.get("x-repo-commit"), got.headers.get(header)
        if commit is not None and commit != self._commit:
            self._changed("another commit's is there now")
        if etag and self._etags.setdefault(kind, _plain(etag)) != _plain(etag):
            self._changed("its ETag changed in between")

    def _failed(self, url: str, got: Answer, *, storage: bool) -> NoReturn:
        if got.status in TRANSIENT_STATUS:
            raise TransientError(f"the server answered {got.status}", wait_told(got.status, got.headers))
        if got.status >= 400 and storage:
            if self._signed == url:
                self._signed = None
            raise TransientError(f"the storage host answered {got.status} (its address may have expired)", 0)
        if got.status == 416:
            self._changed("it is shorter now")
        self._refused(got)

    def _body(self, url: str, got: Answer, where: ByteRange, *, storage: bool) -> Iterator[bytes]:
        if got.status not in (200, 206):
            self._failed(url, got, storage=storage)
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
        if got.status == 200 and where != ByteRange(0, self.size):
            raise HubError(
                f"{urlsplit(url).hostname} ignores ranges and would send all of {self._name}; use another "
                "HF_ENDPOINT, or download the model first (`hf download`)"
            )
        if got.status == 206:
            given = got.headers.get("content-range", "")
            match = _CONTENT_RANGE.fullmatch(given)
            start, last, size = map(int, match.groups()) if match else (-1, -1, -1)
            if (start, size) != (where.start, self.size) or not start <= last < where.stop:
                asked = f"bytes {where.start}-{where.stop - 1}/{self.size}"
                self._changed(f"the server sent {given or 'no Content-Range'} for {asked}")
            promised = last + 1 - start
        if got.headers.get("content-encoding", "identity") != "identity":
            self._changed("it came encoded")
        length = got.headers.get("content-length", str(promised))
        if length != str(promised):
            self._changed(f"its Content-Length is {length}, not that of the range")
        self._check_version("etag", got, "storage" if storage else "hub")
        return promised

    def _changed(self, how: str) -> NoReturn:
        raise HubError(f"{self._name} of {self._address} is not what it was: {how}; nothing was used, run again")

    def _refused(self, got: Answer) -> NoReturn:
        from huggingface_hub import get_token

        if got.response is not None:
            got.response.read()
            with hub_errors(self._address, logged_in=get_token() is not None):
                raise_for_status(got.response)
        raise HubError(f"the Hub answered {got.status} for {self._name} of {self._address}")


def _same_origin(a: str, b: str) -> bool:
    return origin(a) == origin(b)


def _plain(etag: str) -> str:
    return etag.removeprefix("W/").strip('"')
