"""Whatever answers in the Hub's place ends in one line: soon, in little memory, and without the token."""

from __future__ import annotations

import gzip
import json
import socket
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest

from gatenorm_stream.errors import HubError
from gatenorm_stream.sources.hub import guard
from gatenorm_stream.sources.hub.address import HubAddress
from gatenorm_stream.sources.hub.answers import answer
from gatenorm_stream.sources.hub.listing import list_repository, read_listing
from gatenorm_stream.sources.hub.retry import ATTEMPTS, LEAST_PROGRESS, Patience, SlowError, TransientError

ADDRESS = HubAddress("org/name")
GOOD = {"sha": "a" * 40, "siblings": [{"rfilename": "config.json", "size": 3, "blobId": "b" * 40}]}
Conversation = Callable[[socket.socket], None]


class Server:
    """Answers each connection by a function; `asked` are the requests as they came."""

    def __init__(self, talk: Conversation) -> None:
        self.talk, self.asked = talk, list[str]()
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listening.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self.listening.accept()
                threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with connection, suppress(OSError):
            self.asked.append(connection.recv(1 << 16).decode("latin-1"))
            self.talk(connection)


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Conversation], Server]]:
    servers = []

    def start(talk: Conversation) -> Server:
        servers.append(server := Server(talk))
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", server.url)
        monkeypatch.setenv("HF_TOKEN", "hf_secret")
        return server

    yield start
    for server in servers:
        server.listening.close()


def whole(body: bytes, status: str = "200 OK", **headers: str) -> Conversation:
    told = {"Content-Length": str(len(body)), "Connection": "close"}
    told |= {k.replace("_", "-"): v for k, v in headers.items()}
    head = "".join(f"{line}\r\n" for line in [f"HTTP/1.1 {status}", *(f"{k}: {v}" for k, v in told.items()), ""])
    return lambda connection: connection.sendall(head.encode() + body)


def test_a_good_answer(served: Callable[[Conversation], Server]) -> None:
    server = served(whole(json.dumps(GOOD).encode()))
    listing = list_repository(ADDRESS)
    assert (listing.commit, [e.name for e in listing.entries]) == ("a" * 40, ["config.json"])
    assert "accept-encoding: identity" in server.asked[0].lower()
    assert "hf_secret" in server.asked[0]


PAGE = b"<!doctype html><title>Log in</title>"
WRONG: dict[str, tuple[Conversation, str]] = {
    "a captive portal": (whole(PAGE, Content_Type="text/html"), "a web page"),
    "an empty object": (whole(b"{}"), "no commit"),
    "nothing": (whole(b""), "no JSON"),
    "packed": (whole(gzip.compress(b"x" * 100), Content_Encoding="gzip"), "packed"),
    "a redirect in a circle": (whole(b"", "302 Found", Location="/api/models/org/name"), "in a circle"),
    "a redirect to nowhere": (whole(b"", "302 Found", Location="http://[::1"), "no address|is not reached"),
    "no status": (lambda connection: connection.sendall(b"hello\r\n\r\n"), "is not reached"),
    "null in the place of an error": (whole(b"null", "404 X", X_Error_Code="RepoNotFound"), "as no Hub does"),
    "an error without end": (whole(b"[" * 9000, "404 X", X_Error_Code="RepoNotFound"), "as no Hub does"),
    "no content": (whole(b"", "204 No Content"), "status 204"),
    "a body in the place of an error": (whole(PAGE, "418 Teapot"), "answered 418"),
}


@pytest.mark.parametrize(("talk", "words"), WRONG.values(), ids=WRONG)
def test_what_is_no_hub_is_told_in_one_line(
    served: Callable[[Conversation], Server], talk: Conversation, words: str
) -> None:
    served(talk)
    with pytest.raises((HubError, TransientError), match=words) as found:
        list_repository(ADDRESS)
    assert len(str(found.value).splitlines()) == 1


LISTS: dict[str, Any] = {
    "a list": [],
    "a number": 7,
    "no files": {"sha": "a" * 40},
    "files of another type": {**GOOD, "siblings": {"a": 1}},
    "a commit of another type": {**GOOD, "sha": 7},
    "a commit that is a path": {**GOOD, "sha": "../../etc"},
    "a commit that is empty": {**GOOD, "sha": ""},
    "a file of another type": {**GOOD, "siblings": ["config.json"]},
    "no name": {**GOOD, "siblings": [{"size": 3}]},
    "a name of another type": {**GOOD, "siblings": [{"rfilename": ["a"]}]},
    "a size of another type": {**GOOD, "siblings": [{"rfilename": "a", "size": "3"}]},
    "a size below zero": {**GOOD, "siblings": [{"rfilename": "a", "size": -3}]},
    "a size that is true": {**GOOD, "siblings": [{"rfilename": "a", "size": True}]},
    "a size beyond all": {**GOOD, "siblings": [{"rfilename": "a", "size": 10**30}]},
    "a digest of another type": {**GOOD, "siblings": [{"rfilename": "a", "lfs": {"sha256": 3}}]},
    "a digest that is a path": {**GOOD, "siblings": [{"rfilename": "a", "lfs": {"sha256": "../x"}}]},
    "an object with a line": {**GOOD, "siblings": [{"rfilename": "a", "blobId": "a\nb"}]},
    "lfs of another type": {**GOOD, "siblings": [{"rfilename": "a", "lfs": "x"}]},
}


@pytest.mark.parametrize("given", LISTS.values(), ids=LISTS)
def test_lists_that_are_none(given: Any) -> None:
    with pytest.raises(HubError, match="no Hub does"):
        read_listing(json.dumps(given).encode(), ADDRESS)


NO_JSON = [b"\xff", b"[" * 100_000, b'{"a":' + b"9" * 5000 + b"}", b"[" + b"0," * 600_000 + b"0]"]


@pytest.mark.parametrize("text", NO_JSON, ids=range(len(NO_JSON)))
def test_texts_that_are_no_list(text: bytes) -> None:
    with pytest.raises(HubError, match="no JSON"):
        read_listing(text, ADDRESS)


@pytest.mark.parametrize("length", ["known", "unknown", "an error's"])
def test_an_answer_without_end(served: Callable[[Conversation], Server], length: str) -> None:
    def flood(connection: socket.socket) -> None:
        status = "404 Not Found" if length == "an error's" else "200 OK"
        told = f"Content-Length: {1 << 40}\r\n" if length == "known" else ""
        connection.sendall(f"HTTP/1.1 {status}\r\n{told}\r\n".encode())
        while True:
            connection.sendall(b"[" * (1 << 18))

    served(flood)
    tracemalloc.start()
    with pytest.raises(HubError, match="more than"):
        list_repository(ADDRESS)
    assert tracemalloc.get_traced_memory()[1] < 100e6
    tracemalloc.stop()


@pytest.mark.parametrize("part", ["headers", "body", "silence"])
def test_a_byte_a_moment_does_not_hold_a_run(
    served: Callable[[Conversation], Server], monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    def drip(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\n" + (b"\r\n" if part == "body" else b"X-A: "))
        while part != "silence":
            connection.sendall(b"x")
            time.sleep(0.02)
        time.sleep(5)

    served(drip)
    monkeypatch.setattr(guard, "GRACE", 0.2)
    monkeypatch.setattr(list_repository.__globals__["ask"], "__kwdefaults__", {"seconds": 0.6})
    begun = time.monotonic()
    with pytest.raises(TransientError):
        list_repository(ADDRESS)
    assert time.monotonic() - begun < 3


CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"
UNSEEN = {
    "a block": (b"Content-Length: 1000000\r\n\r\n", b"x"),
    "no length": (b"\r\n", b"x"),
    "small chunks": (CHUNKED, b"1\r\nx\r\n"),
    "the size of a chunk": (CHUNKED + b"5\r\nhello\r\n5;", b"x"),
    "trailers": (CHUNKED + b"5\r\nhello\r\n0\r\n", b"X: y\r\n"),
}


@pytest.mark.parametrize("storage", [True, False], ids=["storage", "session"])
@pytest.mark.parametrize("kind", UNSEEN)
def test_a_file_that_comes_a_byte_a_moment(
    served: Callable[[Conversation], Server], monkeypatch: pytest.MonkeyPatch, kind: str, storage: bool
) -> None:
    """Whatever the bytes are: most of these make no block that could be counted."""
    head, unit = UNSEEN[kind]

    def drip(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 206 OK\r\n" + head)
        while True:
            connection.sendall(unit)
            time.sleep(0.02)

    monkeypatch.setattr(guard, "GRACE", 0.2)
    begun = time.monotonic()
    with pytest.raises(SlowError), answer(served(drip).url, {}, storage=storage) as got:
        list(got.blocks)
    assert time.monotonic() - begun < 3


def test_trailers_without_end(served: Callable[[Conversation], Server]) -> None:
    def flood(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 206 OK\r\n" + CHUNKED + b"5\r\nhello\r\n0\r\n")
        while True:
            connection.sendall(b"X: y\r\n" * 10_000)

    with pytest.raises(SlowError, match="none of the file"), answer(served(flood).url, {}, storage=True) as got:
        list(got.blocks)


def test_the_token_goes_to_no_other_origin(
    served: Callable[[Conversation], Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    other = served(whole(PAGE))
    first = served(whole(b"", "302 Found", Location=f"{other.url}/login"))
    with pytest.raises(HubError, match="a web page"):
        list_repository(ADDRESS)
    assert "hf_secret" in first.asked[0]
    assert other.asked
    assert "authorization" not in other.asked[0].lower()


def test_a_link_of_an_answer_gets_no_token(served: Callable[[Conversation], Server]) -> None:
    """As huggingface_hub asks the `verify` link of an LFS answer, with all its headers."""
    other = served(whole(b"{}"))
    served(whole(b"{}"))
    with guard.guarded_client() as client:
        client.post(f"{other.url}/verify", headers={"Authorization": "Bearer hf_secret", "Cookie": "a=b"})
    assert "hf_secret" not in other.asked[0]
    assert "a=b" not in other.asked[0]


STEPS = [
    ("https://a.b/c", "http://a.b/c", False),
    ("https://a.b", "https://c.d", True),
    ("http://a.b", "http://c.d", True),
]


@pytest.mark.parametrize(("before", "after", "allowed"), STEPS)
def test_no_way_from_https_to_http(before: str, after: str, allowed: bool) -> None:
    if allowed:
        guard.check_step(before, after)
    else:
        with pytest.raises(HubError, match="from https to http"):
            guard.check_step(before, after)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://huggingface.co", "https://huggingface.co"),
        ("https://me:secret@hub.org/a@b", "https://hub.org/a@b"),
        ("https:///me:secret@hub.org", "hub.org"),
        ("me:secret@hub.org", "hub.org"),
        ("http://a:b@c@hub.org:80", "http://hub.org:80"),
    ],
)
def test_a_password_of_the_endpoint_is_not_shown(url: str, shown: str) -> None:
    assert guard.without_password(url) == shown


def test_origins_are_compared_as_such() -> None:
    assert guard.origin("https://Hub.org:443/a") == guard.origin("https://u:p@hub.org/b")
    assert len({guard.origin(u) for u in ("https://a", "http://a", "https://a:444", "https://a.evil")}) == 4


def test_a_drip_is_no_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each attempt brings a byte, and ends for its slowness."""
    monkeypatch.setattr("gatenorm_stream.sources.hub.retry.FIRST_WAIT", 0.0)
    patience = Patience("config.json", lambda _: None, threading.Event())
    for _ in range(ATTEMPTS - 1):
        patience.progressed(LEAST_PROGRESS)
        patience.failed(SlowError("less than 1024 bytes a second came"))
    patience.progressed(LEAST_PROGRESS)
    with pytest.raises(HubError, match="less than 1024 bytes a second came, 6 times"):
        patience.failed(SlowError("less than 1024 bytes a second came"))


def test_a_byte_of_each_attempt_is_no_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gatenorm_stream.sources.hub.retry.FIRST_WAIT", 0.0)
    patience = Patience("config.json", lambda _: None, threading.Event())
    for _ in range(ATTEMPTS - 1):
        patience.progressed(1)
        patience.failed(TransientError("the answer broke off"))
    patience.progressed(1)
    with pytest.raises(HubError, match="the answer broke off, 6 times"):
        patience.failed(TransientError("the answer broke off"))
