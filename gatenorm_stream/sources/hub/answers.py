"""One HTTP answer: from the Hub by the guarded session, from its storage host by a connection of our own.

Nearly all bytes come from the storage host. The session's client takes them off the socket 64 KiB at a time through
many layers of Python, which bounds eight connections to 600 MB/s; http.client reads larger blocks with fewer steps.
Where a proxy is set, the session is used for all, since it knows how.
"""

from __future__ import annotations

import http.client
import io
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, urlsplit
from urllib.request import getproxies, proxy_bypass

from gatenorm_stream.sources.hub.guard import SECONDS as HEADER_SECONDS
from gatenorm_stream.sources.hub.guard import Rate, session, within
from gatenorm_stream.sources.hub.retry import SlowError, TransientError

if TYPE_CHECKING:
    import httpx2

BLOCK = 1 << 18
MOST_BETWEEN = 32 * BLOCK
"""Bytes that make a block: of chunks of one byte each, six times its own."""
_STALE = (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError)
_connections = threading.local()


@dataclass(frozen=True)
class Answer:
    """`headers` has lower-case names; `blocks` is the body; `response` is there if the session was used."""

    status: int
    headers: Mapping[str, str]
    blocks: Iterator[bytes]
    response: httpx2.Response | None = None


def answer(url: str, headers: Mapping[str, str], *, storage: bool) -> AbstractContextManager[Answer]:
    """The answer to a GET of `url`, redirects not followed. Raises TransientError if the connection fails."""
    parts = urlsplit(url)
    if storage and not _proxied(parts):
        return _direct_answer(parts, headers)
    return _session_answer(url, headers)


@contextmanager
def _session_answer(url: str, headers: Mapping[str, str]) -> Iterator[Answer]:
    import httpx2

    timeout = httpx2.Timeout(_seconds(), pool=None)
    asked = session().stream("GET", url, headers=dict(headers), timeout=timeout, follow_redirects=False)
    try:
        response = within(HEADER_SECONDS, asked.__enter__)
        try:
            yield Answer(response.status_code, response.headers, response.iter_raw(), response)
        finally:
            response.close()
    except httpx2.TransportError as error:
        raise TransientError(f"the connection failed ({type(error).__name__})") from error


@contextmanager
def _direct_answer(parts: SplitResult, headers: Mapping[str, str]) -> Iterator[Answer]:
    """Each thread keeps one connection to each host alive; one whose answer was not read to its end is closed."""
    whole = False
    try:
        response = _request(parts, headers)
        named = {name.lower(): value for name, value in response.getheaders()}
        yield Answer(response.status, named, response.blocks())
        whole = response.isclosed() and not response.will_close
    except (OSError, http.client.HTTPException, UnicodeError) as error:
        raise TransientError(f"the connection failed ({type(error).__name__})") from error
    finally:
        if not whole:
            _close(parts)


def _request(parts: SplitResult, headers: Mapping[str, str]) -> Response:
    """A kept connection may have been closed by the host meanwhile: then a new one is made, once."""
    path = f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/"
    kept = parts[:2] in _kept()
    try:
        return _headers_in_time(_connection(parts), path, headers)
    except _STALE:
        if not kept:
            raise
    _close(parts)
    return _headers_in_time(_connection(parts), path, headers)


class Response(http.client.HTTPResponse):
    """Counts what comes off the socket: between two blocks of the body, sizes of chunks and trailers may come for
    ever, at any rate.
    """

    def __init__(self, sock: socket.socket, *args: Any, **named: Any) -> None:
        super().__init__(sock, *args, **named)
        self._counted = _Counted(self.fp.detach())
        self.fp = io.BufferedReader(self._counted)

    def blocks(self) -> Iterator[bytes]:
        """The body. Raises SlowError while too little comes, or much that is no body."""
        self._counted.rate = Rate()
        while block := self.read(BLOCK):
            self._counted.between = 0
            yield block


class _Counted(io.RawIOBase):
    """What is read of `raw`; with `rate`, no slower than that, and MOST_BETWEEN at most between two blocks."""

    def __init__(self, raw: io.RawIOBase) -> None:
        self._raw, self.between = raw, 0
        self.rate: Rate | None = None

    def readable(self) -> bool:
        return True

    def readinto(self, memory: Any, /) -> int | None:
        begun = time.monotonic()
        count = self._raw.readinto(memory)
        if self.rate and count:
            self.rate.count(time.monotonic() - begun, count)
            self.between += count
            if self.between > MOST_BETWEEN:
                raise SlowError(f"{MOST_BETWEEN} bytes came that are none of the file")
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()


def _headers_in_time(connection: http.client.HTTPConnection, path: str, headers: Mapping[str, str]) -> Response:
    """A timeout of the socket begins anew with each byte; so the connection is cut when time is up."""

    def cut() -> None:
        with suppress(OSError, AttributeError):
            connection.sock.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(HEADER_SECONDS, cut)
    timer.daemon = True
    timer.start()
    try:
        connection.request("GET", path, headers=dict(headers))
        response = connection.getresponse()
        assert isinstance(response, Response)
        return response
    finally:
        timer.cancel()


def _kept() -> dict[tuple[str, str], http.client.HTTPConnection]:
    if not hasattr(_connections, "kept"):
        _connections.kept = {}
    kept: dict[tuple[str, str], http.client.HTTPConnection] = _connections.kept
    return kept


def _connection(parts: SplitResult) -> http.client.HTTPConnection:
    kept = _kept()
    if parts[:2] not in kept:
        if parts.scheme == "https":
            connection: http.client.HTTPConnection = http.client.HTTPSConnection(
                parts.netloc, timeout=_seconds(), context=_trust()
            )
        else:
            connection = http.client.HTTPConnection(parts.netloc, timeout=_seconds())
        connection.response_class = Response
        kept[parts[:2]] = connection
    return kept[parts[:2]]


def _close(parts: SplitResult) -> None:
    if connection := _kept().pop(parts[:2], None):
        connection.close()


@cache
def _trust() -> ssl.SSLContext:
    """The same certificates that the session trusts."""
    import httpx2

    return httpx2.create_ssl_context()


def _seconds() -> float:
    from huggingface_hub import constants

    return float(constants.HF_HUB_DOWNLOAD_TIMEOUT)


def _proxied(parts: SplitResult) -> bool:
    proxies = getproxies()
    return any(name in proxies for name in (parts.scheme, "all")) and not proxy_bypass(parts.hostname or "")
