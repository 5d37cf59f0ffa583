"""A hostile Hub, without a network: its answers go through the guarded client or http.client.

No token may go to another origin, nothing over http, and an output that came to be verifies.
"""

from __future__ import annotations

import hashlib
import http.client
import io
import json
import os
import random
import re
from functools import partial
from pathlib import Path
from threading import Event
from typing import Any
from unittest.mock import patch
from urllib.parse import unquote, urlsplit

import httpx2
from huggingface_hub import constants

import gatenorm_stream
from gatenorm_stream.errors import GateNormError
from gatenorm_stream.names import is_safe
from gatenorm_stream.planning.decide import Wanted
from gatenorm_stream.planning.decide_for import decide_for
from gatenorm_stream.pruning import carry_out, prepare
from gatenorm_stream.scoring.selection import Choice
from gatenorm_stream.sources.hub import answers, guard, retry, source
from gatenorm_stream.sources.hub.address import HubAddress
from gatenorm_stream.sources.hub.fetch import RangeFetcher
from gatenorm_stream.sources.hub.listing import read_listing
from gatenorm_stream.sources.open import open_source
from gatenorm_stream.sources.ranges import ByteRange
from tests.checkpoints import llama_config, llama_shapes, random_tensors, write_checkpoint
from tests.fuzz.caches import Caches, git_digest
from tests.fuzz.mutate import mutate
from tests.fuzz.target import Target, number, remove
from tests.fuzz.watch import FindingError, Watch
from tests.fuzz.wires import BODIES, HUB, STORAGE, TOKEN, Wire, response, spoilt

COMMIT = "c" * 40
ADDRESS = HubAddress("org/name")
NAMES = (
    "./config.json",
    "config.json/",
    "a//b",
    "../x",
    "/etc/x",
    "a\nb",
    "\x1b[2J",
    ".gatenorm-journal",
    "CONFIG.JSON",
    "x",
)


class _Hurried(Event):
    """Waits for nobody."""

    def wait(self, timeout: float | None = None) -> bool:
        return self.is_set()


class Hubs:
    def __init__(self, folder: Path, watch: Watch) -> None:
        self.watch = watch
        self._root = folder / "hubs"
        self._made = self._root / "made"
        self._made.mkdir(parents=True)
        self._source = write_checkpoint(self._root / "source", random_tensors(llama_shapes()), llama_config())
        self._files = {p.name: p.read_bytes() for p in self._source.iterdir()}
        self._listing = json.dumps({"sha": COMMIT, "siblings": [*map(self._entry, sorted(self._files))]}).encode()
        self._rng, self._spoils, self._raw = random.Random(0), 0.0, b""
        self._broken: list[str] = []
        os.environ["HF_TOKEN"] = TOKEN
        for where, name, value in (
            (constants, "ENDPOINT", HUB),
            (constants, "HF_HUB_CACHE", str(self._root / "cache")),
            (constants, "HF_HUB_OFFLINE", False),
            (retry, "FIRST_WAIT", 0.0),
            (source, "Event", _Hurried),
            (answers, "_connection", self._connection),
            (answers, "_proxied", lambda parts: False),
        ):
            patch.object(where, name, value).start()
        client: Any = guard.session()
        client._transport, client._mounts = httpx2.MockTransport(self._answer_hub), {}
        self._fetch_all()
        gatenorm_stream.verify(self._made / "out", against=self._source)
        self._clear()
        self._caches = Caches(self._root, self.watch, self._files, COMMIT, self.spoil)
        self._raw = self._answer_storage("model-00001-of-00002.safetensors", ByteRange(0, 400))
        self._fetch_raw()

    def targets(self) -> tuple[Target, ...]:
        return (
            Target(
                "hub lists", 0.12, self.listing, lambda rng: mutate(rng, self._listing, [self._listing, *BODIES])
            ),
            Target("hub answers", 0.03, self.answer, self._raw_answers),
            Target("hubs", 0.001, self.hub, number),
            Target("caches", 0.001, self._caches.cache, number),
        )

    def listing(self, data: bytes) -> None:
        self.watch.permit()
        self.watch.case(lambda: _judge_list(data))

    def answer(self, data: bytes) -> None:
        """From the storage host, for one range; the same to each attempt."""
        self._raw = data
        self.watch.permit()
        self.watch.case(self._fetch_raw)

    def hub(self, data: bytes) -> None:
        """All of a prune, some of whose answers are spoilt."""
        rng = random.Random(data)
        self.spoil(rng, rng.choice((0.02, 0.1, 0.5)))
        self.watch.permit(self._made, self._root / "cache", Path("org"))  # there may be a folder of that name
        try:
            error = self.watch.case(self._fetch_all)
            if self._broken:
                raise FindingError(self._broken[0])
            if error is None:
                self.watch.case(self._verify)
        finally:
            self._spoils = 0.0
            self._clear()

    def spoil(self, rng: random.Random, share: float) -> list[str]:
        """So many of the answers from now on; what must not be asked is named in what this gives."""
        self._rng, self._spoils = rng, share
        self._broken.clear()
        return self._broken

    def _fetch_all(self) -> None:
        opened, out = open_source("org/name", connections=1), self._made / "out"
        decide = partial(decide_for, wanted=Wanted(Choice(drop=1)), threads=1)
        with prepare(opened, decide, out) as prepared:
            carry_out(prepared, out, threads=1)

    def _verify(self) -> None:
        try:
            gatenorm_stream.verify(self._made / "out")
        except GateNormError as error:
            raise FindingError(f"its own output does not verify: {error}") from error

    def _fetch_raw(self) -> None:
        name = "model-00001-of-00002.safetensors"
        url, size = f"{HUB}/org/name/resolve/{COMMIT}/{name}", len(self._files[name])
        fetcher = RangeFetcher(ADDRESS, name, url, size, COMMIT, lambda _: None, _Hurried())
        fetcher._signed = f"{STORAGE}/raw"
        got = b"".join(fetcher.fetch(ByteRange(0, 400)))
        if len(got) != 400:
            raise FindingError(f"{len(got)} bytes came for 400")

    def _raw_answers(self, rng: random.Random) -> bytes:
        whole = self._answer_storage("model-00001-of-00002.safetensors", ByteRange(0, 400))
        if rng.randrange(2):
            wire = spoilt(self._stored("model-00001-of-00002.safetensors", ByteRange(0, 400)), rng)
            whole = _raw(wire)
        return mutate(rng, whole, [whole, *BODIES])

    def _entry(self, name: str) -> dict[str, Any]:
        content = self._files[name]
        entry: dict[str, Any] = {"rfilename": name, "size": len(content), "blobId": git_digest(content)}
        if name.endswith(".safetensors"):
            entry["lfs"] = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
        return entry

    def _lying(self) -> dict[str, Any]:
        """An entry of the listing with another name, size or digest than the file's."""
        entry = self._entry(self._rng.choice(sorted(self._files)))
        changes: tuple[tuple[str, Any], ...] = (
            ("rfilename", self._rng.choice(NAMES)),
            ("rfilename", "d/" * self._rng.choice((1, 40, 400)) + "x.json"),
            *(("size", self._rng.choice((0, 1, 10**6, 1 << 60))), ("size", None), ("blobId", None)),
            *(("blobId", self._rng.choice(("../../x", "d" * 40, "refs"))), ("lfs", {"sha256": "d" * 64})),
        )
        return {**entry, **dict([self._rng.choice(changes)])}

    def _answer_hub(self, request: httpx2.Request) -> httpx2.Response:
        url = str(request.url)
        self._check(url, {k.lower() for k in request.headers})
        wire = self._told(request)
        if self._rng.random() < self._spoils:
            wire = spoilt(wire, self._rng)
        return response(wire)

    def _check(self, url: str, names: set[str]) -> None:
        if urlsplit(url).scheme != "https":
            self._broken.append(f"{url} was asked, after https")
        if urlsplit(url).netloc not in ("hub.test", "hub.test:443") and names & {"authorization", "cookie"}:
            self._broken.append(f"{url} got the token")

    def _told(self, request: httpx2.Request) -> Wire:
        """What an honest Hub answers."""
        path = unquote(request.url.path)
        if path.startswith("/api/models/org/name"):
            listing = self._listing
            if self._rng.random() < self._spoils:
                found = json.loads(listing)
                found["siblings"].insert(self._rng.randrange(3), self._lying())
                listing = json.dumps(found).encode()
            return Wire(200, (("Content-Length", str(len(listing))),), listing)
        name = path.removeprefix(f"/org/name/resolve/{COMMIT}/")
        if name not in self._files:
            return Wire(404, (("X-Error-Code", "EntryNotFound"),), b"")
        if name.endswith(".safetensors"):
            etag = hashlib.sha256(self._files[name]).hexdigest()
            location = f"{STORAGE}/{name}?signed=1"
            return Wire(
                302, (("Location", location), ("X-Repo-Commit", COMMIT), ("X-Linked-Etag", f'"{etag}"')), b""
            )
        return self._stored(name, _range(request.headers.get("range", "")))

    def _stored(self, name: str, where: ByteRange) -> Wire:
        content = self._files.get(name, b"")
        part = content[where.start : where.stop]
        told = f"bytes {where.start}-{where.start + len(part) - 1}/{len(content)}"
        return Wire(206, (("Content-Length", str(len(part))), ("Content-Range", told), ("ETag", '"e"')), part)

    def _answer_storage(self, name: str, where: ByteRange) -> bytes:
        wire = self._stored(name, where)
        if self._rng.random() < self._spoils:
            wire = spoilt(wire, self._rng)
        raw = _raw(wire)
        return mutate(self._rng, raw, [raw, *BODIES]) if self._rng.random() < self._spoils / 2 else raw

    def _connection(self, parts: Any) -> http.client.HTTPConnection:
        return _Connection(parts.netloc, self)

    def storage(self, asked: bytes) -> bytes:
        """The raw answer to a raw request."""
        line, *lines = asked.decode("latin-1").split("\r\n")
        headers = {k.lower(): v.strip() for k, _, v in (each.partition(":") for each in lines)}
        if {"authorization", "cookie"} & headers.keys():
            self._broken.append(f"{headers.get('host')} got the token")
        path = urlsplit(line.split(" ")[1]).path
        if path == "/raw":
            return self._raw
        return self._answer_storage(unquote(path).removeprefix("/"), _range(headers.get("range", "")))

    def _clear(self) -> None:
        for path in self._made.iterdir():
            remove(path)


class _Connection(http.client.HTTPConnection):
    """Its socket is this very object."""

    response_class = answers.Response

    def __init__(self, host: str, hub: Hubs) -> None:
        super().__init__(host)
        self._hub, self._asked = hub, b""
        self.sock: Any = self

    def sendall(self, data: bytes) -> None:
        self._asked += data

    def makefile(self, *_: object) -> io.BufferedReader:
        raw: Any = io.BytesIO(self._hub.storage(self._asked))
        return io.BufferedReader(raw)

    def shutdown(self, *_: object) -> None:
        pass

    def close(self) -> None:
        self.sock = None
        super().close()


def _raw(wire: Wire) -> bytes:
    lines = [f"HTTP/1.1 {wire.status} X", *(f"{name}: {value}" for name, value in wire.headers), "", ""]
    return "\r\n".join(lines).encode("latin-1") + wire.body


def _range(text: str) -> ByteRange:
    match = re.fullmatch(r"bytes=(\d+)-(\d+)", text)
    return ByteRange(int(match[1]), int(match[2]) + 1) if match else ByteRange(0, 1 << 30)


def _judge_list(data: bytes) -> None:
    listing = read_listing(data, ADDRESS)
    if not re.fullmatch(r"[0-9A-Za-z]{1,64}", listing.commit):
        raise FindingError(f"{listing.commit!r} is a commit")
    for entry in listing.entries:
        is_safe(entry.name)
        if entry.size is not None and not (type(entry.size) is int and 0 <= entry.size <= 1 << 60):
            raise FindingError(f"{entry.size!r} is a size")
        if not isinstance(entry.etag, str) or "\n" in entry.etag or (entry.sha256 and len(entry.sha256) != 64):
            raise FindingError(f"{entry.etag!r} is a digest")
