"""What the stand-in Hub was asked, and what it is told to do wrong."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from typing import Literal

Origin = Literal["hub", "storage", "elsewhere"]


@dataclass(frozen=True)
class Request:
    """A request and how it was answered.

    `sent` counts the bytes of the body that were handed to the socket. A client that gave up in between may
    not have read the last few megabytes of them.
    """

    origin: Origin
    method: str
    path: str  # with the query
    file: str  # its name in the repository; empty where the answer is not about one
    range: str | None
    authorization: str | None
    connection: int
    status: int  # 0: the connection was dropped before an answer
    sent: int = 0
    fault: str = ""


class Log:
    """The requests in the order of their answers. A client that has its answer finds it here."""

    def __init__(self) -> None:
        self._requests: list[Request] = []
        self._lock = threading.Lock()

    def __iter__(self) -> Iterator[Request]:
        with self._lock:
            return iter(list(self._requests))

    def __len__(self) -> int:
        return len(self._requests)

    def clear(self) -> None:
        with self._lock:
            self._requests = []

    def open(self, request: Request) -> Callable[[int], None]:
        """Log a request; what is returned adds to its bytes sent."""
        with self._lock:
            requests, place = self._requests, len(self._requests)
            requests.append(request)

        def add(count: int) -> None:
            with self._lock:
                requests[place] = replace(requests[place], sent=requests[place].sent + count)

        return add

    def select(self, origin: Origin | None = None, file: str = "*", method: str | None = None) -> list[Request]:
        return [request for request in self if at(origin, file, method)(request)]

    def sent(self, origin: Origin | None = None, file: str = "*") -> int:
        """Bytes of bodies sent, in all or of the files that match."""
        return sum(request.sent for request in self.select(origin, file))

    def by_origin(self) -> Counter[str]:
        return Counter(request.origin for request in self)


def at(
    origin: Origin | None = None, file: str = "*", method: str | None = None, ranged: bool | None = None
) -> Callable[[Request], bool]:
    """Whether a request is to this origin, for a file whose name matches, by this method, with a Range."""

    def matches(request: Request) -> bool:
        return (
            origin in (None, request.origin)
            and fnmatch(request.file, file)
            and method in (None, request.method)
            and ranged in (None, request.range is not None)
        )

    return matches


ANY = at()

Kind = Literal[
    "status",  # answers with the status `value`, and with Retry-After where `retry_after` is given
    "delay",  # waits for `value` seconds, then answers as it should
    "drop",  # closes the connection instead of answering
    "expired",  # 403, as the storage host answers once a signed URL has expired
    "redirect",  # sends the client on to a third host, which has the file
    "etag",  # another ETag than before
    "truncate",  # closes the connection after `value` bytes of the body
    "stall",  # sends half of the body, then nothing until the client closes the connection
    "corrupt",  # the first byte of the body is another one
    "gzip",  # the whole file, compressed, if the client accepts that or `value` is not 0: what a cache may do
    "ignore-range",  # 200 and the whole file
    "wrong-range",  # Content-Range names a place `value` (else 1) bytes further on
    "short",  # a correct answer with the first `value` bytes of the range only, which HTTP allows
    "wrong-length",  # `value` bytes more (or fewer) than Content-Range says, and a Content-Length to match
]

_OF_A_FILE = {"redirect", "etag"}
_OF_CONTENT = {"truncate", "stall", "corrupt", "gzip"}
_OF_A_RANGE = {"ignore-range", "wrong-range", "short", "wrong-length"}


@dataclass(frozen=True)
class Fault:
    """What goes wrong, at which requests. Only requests that it can concern are counted.

    Of these, those that `match` count: the first `skip` are let through, then it strikes `times` times
    (None: from then on always). `match` sees the request with the status that it would have had.
    """

    kind: Kind
    value: float = 0
    match: Callable[[Request], bool] = ANY
    skip: int = 0
    times: int | None = 1
    retry_after: int | str | None = None
    headers: tuple[tuple[str, str], ...] = ()  # of the answer with that status

    def concerns(self, request: Request) -> bool:
        content = request.method == "GET" and request.file != "" and request.status in (200, 206)
        return self.match(request) and (
            (self.kind not in _OF_A_FILE or request.file != "")
            and (self.kind not in _OF_CONTENT or content)
            and (self.kind not in _OF_A_RANGE or (content and request.status == 206))
            and (self.kind != "expired" or request.origin != "hub")
        )


class Faults:
    """The faults in force; of several that would strike, the one that was added first does."""

    def __init__(self) -> None:
        self._faults: list[Fault] = []
        self._seen: list[int] = []
        self._lock = threading.Lock()

    def add(self, *faults: Fault) -> None:
        with self._lock:
            self._faults.extend(faults)
            self._seen.extend(0 for _ in faults)

    def clear(self) -> None:
        with self._lock:
            self._faults.clear()
            self._seen.clear()

    def pick(self, request: Request) -> Fault | None:
        with self._lock:
            for n, fault in enumerate(self._faults):
                if fault.concerns(request):
                    self._seen[n] += 1
                    struck = self._seen[n] - fault.skip
                    if struck > 0 and (fault.times is None or struck <= fault.times):
                        return fault
        return None
