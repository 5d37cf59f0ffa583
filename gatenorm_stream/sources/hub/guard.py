"""The one client that asks the Hub: what each request may carry, and what each answer may cost.

The token goes to the endpoint's own origin alone, whatever link an answer holds; an https endpoint leads nowhere by
http; nothing is unpacked. An answer has so many bytes and so much time, and a least rate while it comes.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from threading import Event, Thread
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import SplitResult, urlsplit

from gatenorm_stream.errors import HubError
from gatenorm_stream.sources.hub.retry import SlowError, TransientError
from gatenorm_stream.version import VERSION

if TYPE_CHECKING:
    import httpx2

LISTING_BYTES = 24_000_000
ERROR_BYTES = 1 << 20
MOST_VALUES = 500_000
SECONDS = 60.0
"""For an answer's headers, and for all of an answer that is no file."""
GRACE = 10.0
LEAST_RATE = 1024
"""Bytes a second that must come once `GRACE` seconds have gone by with waiting for them."""
TOO_SLOW = f"less than {LEAST_RATE} bytes a second came"
MOST = "gatenorm_most_bytes"
"""Of a request's extensions: how many bytes its answer may have; a file's answer is counted by who reads it."""

_ADDRESS = re.compile(r"([a-z][a-z\d+.-]*://)(?:[^/?#]*@)?([^/?#@]+(?:[/?#].*)?)", re.IGNORECASE | re.DOTALL)

T = TypeVar("T")


class Rate:
    """Raises SlowError while less than `LEAST_RATE` comes; only time that is spent waiting counts."""

    def __init__(self) -> None:
        self._waited, self._bytes = 0.0, 0

    def check(self, blocks: Iterator[bytes]) -> Iterator[bytes]:
        while True:
            begun = time.monotonic()
            block = next(blocks, b"")
            if not block:
                return
            self.count(time.monotonic() - begun, len(block))
            yield block

    def count(self, waited: float, came: int) -> None:
        """So many bytes more, after so many seconds more."""
        self._waited += waited
        self._bytes += came
        if self._waited > GRACE and self._bytes < LEAST_RATE * self._waited:
            raise SlowError(TOO_SLOW)


def origin(url: str) -> tuple[str, str, int]:
    """Raises ValueError if `url` is none."""
    parts = urlsplit(url)
    return parts.scheme, (parts.hostname or ""), parts.port or (443 if parts.scheme == "https" else 80)


def endpoint_shown() -> str:
    """HF_ENDPOINT without a name and a password, if it has them."""
    from huggingface_hub import constants

    return without_password(constants.ENDPOINT)


def without_password(url: str) -> str:
    """Of what is no address, only the end: anything before it may be one."""
    if "@" not in url:
        return url
    match = _ADDRESS.fullmatch(url)
    return f"{match[1]}{match[2]}" if match else url.rpartition("@")[2]


def check_step(before: SplitResult | str, location: str) -> None:
    """Raises HubError if the way leads from https to http."""
    scheme = before.scheme if isinstance(before, SplitResult) else urlsplit(before).scheme
    if scheme == "https" and urlsplit(location).scheme != "https":
        raise HubError(
            f"the way leads from https to {urlsplit(location).scheme}://{urlsplit(location).hostname}, where all "
            "could be read and changed; check HF_ENDPOINT and the network"
        )


@cache
def session() -> httpx2.Client:
    return guarded_client()


def guarded_client(most: int | None = None, seconds: float | None = None) -> httpx2.Client:
    """Like huggingface_hub's own, which sends the token along any link that an answer names.

    `most` bytes has an answer that says nothing else; `seconds` of silence end it.
    """
    from huggingface_hub.utils._http import default_client_factory

    client = default_client_factory()
    hooks = client.event_hooks
    client.event_hooks = {
        "request": [*hooks.get("request", ()), _check_request],
        "response": [*hooks.get("response", ()), partial(_bound_answer, most)],
    }
    if seconds:
        client.timeout = seconds
    return client


def within(seconds: float, ask: Callable[[], T]) -> T:
    """`ask()`, in a thread that is left to itself if it takes longer: no library bounds all that it waits for.

    Raises TransientError then.
    """
    found: list[T] = []
    failed: list[BaseException] = []
    done = Event()

    def work() -> None:
        try:
            found.append(ask())
        except BaseException as error:  # it is raised again, in the thread that waits
            failed.append(error)
        done.set()

    Thread(target=work, daemon=True).start()
    if not done.wait(seconds):
        raise TransientError(f"no whole answer came within {seconds:.0f} s")
    if failed:
        raise failed[0]
    return found[0]


def hub_headers() -> dict[str, str]:
    """huggingface_hub's own function asks the endpoint what agents there are, by a client that nothing bounds."""
    from huggingface_hub import constants, get_token

    token = None if constants.HF_HUB_DISABLE_IMPLICIT_TOKEN else get_token()
    named = {"user-agent": f"gatenorm-stream/{VERSION}"}
    return {**named, "authorization": f"Bearer {token}"} if token else named


def ask(url: str, headers: dict[str, str], params: dict[str, Any], *, seconds: float = SECONDS) -> httpx2.Response:
    """The whole answer to a GET, redirects followed. Raises what httpx2 does, HubError or TransientError."""
    import httpx2
    from huggingface_hub import constants

    timeout = httpx2.Timeout(min(float(constants.HF_HUB_DOWNLOAD_TIMEOUT), seconds))

    def get() -> httpx2.Response:
        return session().get(url, headers=headers, params=params, timeout=timeout, extensions={MOST: LISTING_BYTES})

    return within(seconds, get)


def read_answer(text: bytes) -> Any:
    """The JSON in an answer. Raises ValueError if it is none, or takes much more memory than bytes."""
    if text.count(b",") + text.count(b"[") + text.count(b"{") > MOST_VALUES:
        raise ValueError(f"it holds more than {MOST_VALUES} values")
    try:
        return json.loads(text.decode("utf-8"))
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


@contextmanager
def _counted(network: Any) -> Iterator[None]:
    """Each read of the connection counts: sizes of chunks and trailers, which make no block, may come for ever."""
    if network is None:
        yield
        return
    rate, read = Rate(), network.read

    def counted(*args: Any, **named: Any) -> bytes:
        begun = time.monotonic()
        data: bytes = read(*args, **named)
        rate.count(time.monotonic() - begun, len(data))
        return data

    network.read = counted
    try:
        yield
    finally:
        network.read = read


def _check_request(request: httpx2.Request) -> None:
    from huggingface_hub import constants

    url = str(request.url)
    check_step(constants.ENDPOINT, url)
    if origin(url) != origin(constants.ENDPOINT):
        for name in ("authorization", "cookie"):
            request.headers.pop(name, None)
    request.headers["accept-encoding"] = "identity"


def _bound_answer(default: int | None, response: httpx2.Response) -> None:
    if response.headers.get("content-encoding", "identity") != "identity":
        raise HubError(f"{response.url.host} sent an answer that is packed, though nobody asked for that")
    most = ERROR_BYTES if response.status_code >= 300 else response.request.extensions.get(MOST, default)
    network = response.extensions.get("network_stream")
    response.stream = _bounded(response.stream, most, response.url.host, network)


def _bounded(stream: Any, most: int | None, host: str, network: Any) -> Any:
    import httpx2

    class Bounded(httpx2.SyncByteStream):
        def __iter__(self) -> Iterator[bytes]:
            received = 0
            with _counted(network):
                for block in Rate().check(iter(stream)):
                    received += len(block)
                    if most is not None and received > most:
                        raise HubError(f"{host} sent more than {most} bytes where no file was asked for")
                    yield block

        def close(self) -> None:
            stream.close()

    return Bounded()
