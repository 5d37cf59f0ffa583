"""Answers of a Hub as they are sent, and how they are spoilt."""

from __future__ import annotations

import gzip
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace

import httpx2

from tests.fuzz.mutate import mutate

HUB, STORAGE, TOKEN = "https://hub.test", "https://storage.test", "hf_secret"
STATUS = (200, 201, 204, 206, 301, 302, 304, 307, 400, 401, 403, 404, 408, 416, 418, 429, 500, 503, 599)
LOCATIONS = (
    *(
        "http://hub.test/x",
        "//evil.test/x",
        "javascript:alert(1)",
        "http://[::1",
        "/",
        "",
        "file:///etc/passwd",
        "\xff",
    ),
    *(
        "https://evil.test/x",
        f"{STORAGE}/config.json",
        f"{HUB}/api/models/org/name",
        "https://hub.test:444/",
        "x" * 9000,
    ),
)
HEADERS = (
    *((("Content-Encoding", "gzip")), ("Content-Length", "-1"), ("Content-Length", "9" * 30), ("ETag", '"other"')),
    *(
        ("Content-Range", "bytes 0-1/2"),
        ("Content-Range", "bytes */5"),
        ("Content-Range", "bytes 0-" + "9" * 20 + "/1"),
    ),
    *(
        ("Retry-After", "900"),
        ("Retry-After", "9" * 12),
        ("Retry-After", "Fri, 31 Dec 9999 23:59:59 GMT"),
        ("X", "\xff"),
    ),
    *(
        ("X-Repo-Commit", "d" * 40),
        ("X-Error-Code", "GatedRepo"),
        ("X-Error-Code", "RepoNotFound"),
        ("Link", "<x>"),
    ),
    *(
        ("X-Error-Message", "\x1b[2J\n<b>"),
        ("RateLimit", '"api";r=0;t=400'),
        ("Set-Cookie", "a=b"),
        ("Location", "/x"),
    ),
    *(("ETag", '"../../x"'), ("X-Linked-Etag", "../../../../x"), ("ETag", '"' + "d" * 40 + '"')),
    *(("Transfer-Encoding", "chunked"), ("X-Linked-Etag", '"x"'), ("X-Linked-Size", "-5"), ("Date", "")),
)
BODIES = (
    b"",
    b"{}",
    b"[]",
    b"<!doctype html>",
    b"null",
    b"[" * 5000,
    b'{"error": "\x1b[2J"}',
    gzip.compress(b"x" * 10_000),
)


@dataclass(frozen=True)
class Wire:
    """An answer as it is sent."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes


def response(wire: Wire) -> httpx2.Response:
    headers = [(k.encode("latin-1"), v.encode("latin-1")) for k, v in wire.headers]
    return httpx2.Response(wire.status, headers=headers, stream=_Stream(wire.body))


def spoilt(wire: Wire, rng: random.Random) -> Wire:
    """One thing of it is another."""
    match rng.randrange(7):
        case 0:
            return replace(wire, status=rng.choice(STATUS))
        case 1:
            return replace(wire, status=302, headers=(("Location", rng.choice(LOCATIONS)),), body=b"")
        case 2:
            added = rng.choice(HEADERS)
            return replace(wire, headers=(*(h for h in wire.headers if h[0] != added[0]), added))
        case 3:
            gone = rng.randrange(len(wire.headers) or 1)
            return replace(wire, headers=wire.headers[:gone] + wire.headers[gone + 1 :])
        case 4:
            return replace(wire, body=rng.choice(BODIES), status=rng.choice((wire.status, rng.choice(STATUS))))
        case 5:
            return replace(wire, body=wire.body[: rng.randrange(len(wire.body) + 1)])
        case _:
            return replace(wire, body=mutate(rng, wire.body, [wire.body, *BODIES]))


class _Stream(httpx2.SyncByteStream):
    def __init__(self, body: bytes) -> None:
        self._body = body

    def __iter__(self) -> Iterator[bytes]:
        for start in range(0, len(self._body), 4096):
            yield self._body[start : start + 4096]
