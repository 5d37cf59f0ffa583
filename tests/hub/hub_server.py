"""A stand-in for the Hugging Face Hub on the loopback, for tests and for trying things by hand.

    with Hub({"org/name": Repository(folder)}) as hub:
        ...  # HF_ENDPOINT=hub.endpoint

    python -m tests.hub.hub_server FOLDER

It speaks the protocol over real connections: the Hub itself, a storage host on another port that it sends
clients to for large files, and a third host that nobody should be sent to.
"""

from __future__ import annotations

import argparse
import itertools
import select
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.hub.hub_answer import Answer, spoilt
from tests.hub.hub_faults import Faults, Log, Origin, Request
from tests.hub.hub_repository import Repository
from tests.hub.hub_routes import Routes
from tests.hub.hub_storage import Storage
from tests.hub.hub_uploads import Uploads

CHUNK = 1 << 18
LEAD = 0.02  # seconds that a paced connection may run ahead, to make up for sleeping too long


class Server(ThreadingHTTPServer):
    """One origin. Keeps count of its connections: `connections` are open now, `peak` were at once."""

    daemon_threads = True
    request_queue_size = 256

    def __init__(self, hub: Hub, name: Origin, port: int) -> None:
        super().__init__(("127.0.0.1", port), Connection)
        self.hub, self.name = hub, name
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.connections, self.peak = 0, 0
        self._sockets: set[socket.socket] = set()
        self._lock = threading.Lock()

    def enter(self, connection: socket.socket) -> None:
        with self._lock:
            self._sockets.add(connection)
            self.connections = len(self._sockets)
            self.peak = max(self.peak, self.connections)

    def leave(self, connection: socket.socket) -> None:
        with self._lock:
            self._sockets.discard(connection)
            self.connections = len(self._sockets)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no error of the server."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)

    def start(self) -> None:
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        self.shutdown()
        self.server_close()
        with self._lock:
            for connection in self._sockets:
                # The thread that serves it sees the end and closes it.
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)


class Connection(BaseHTTPRequestHandler):
    """One kept-alive connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Server
    numbers = itertools.count(1)

    def setup(self) -> None:
        super().setup()
        self.number = next(self.numbers)
        self.clear_at = 0.0  # when the bytes so far have had their time
        self.server.enter(self.connection)

    def finish(self) -> None:
        self.server.leave(self.connection)
        super().finish()

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        hub = self.server.hub
        asked = {name.title(): value for name, value in self.headers.items()}
        posted = self.rfile.read(int(asked.get("Content-Length", 0)))
        answer = hub.answer(self.server.name, self.command, self.path, asked, posted)
        request = Request(
            origin=self.server.name,
            method=self.command,
            path=self.path,
            file=answer.file,
            range=asked.get("Range"),
            authorization=asked.get("Authorization"),
            connection=self.number,
            status=answer.status,
        )
        fault = hub.faults.pick(request)
        if fault:
            request = replace(request, fault=fault.kind)
            if fault.kind == "delay":
                time.sleep(fault.value)
            if fault.kind == "drop":
                hub.log.open(replace(request, status=0))
                self.close_connection = True
                return
            answer = spoilt(answer, fault, asked, hub.storage.url(hub.origins["elsewhere"].url, answer.key))
        if self.command == "PUT" and answer.status == 200:
            hub.uploads.keep(self.path, posted)
        sent = hub.log.open(replace(request, status=answer.status))
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(answer.length))
        self.end_headers()
        if self.command != "HEAD":
            self.send_body(answer, sent)

    do_HEAD = do_POST = do_PUT = do_GET  # noqa: N815

    def send_body(self, answer: Answer, sent: Callable[[int], None]) -> None:
        rate = self.server.hub.rate
        for chunk in answer.chunks(min(CHUNK, max(1024, int(rate / 100))) if rate else CHUNK):
            sent(len(chunk))
            try:
                self.connection.sendall(chunk)
            except OSError:
                sent(-len(chunk))
                raise
            if rate:
                now = time.monotonic()
                self.clear_at = max(self.clear_at, now - LEAD) + len(chunk) / rate
                time.sleep(max(self.clear_at - now, 0))
        if answer.stall:
            select.select([self.connection], [], [])  # until the client closes it, or the Hub ends
        if answer.cut is not None and answer.cut < answer.length:
            self.close_connection = True


class Hub:
    """The Hub: `endpoint` is what HF_ENDPOINT has to be, `log` what it was asked, `faults` what goes wrong.

    `rate` limits every connection to as many bytes a second. `storage.signer` says how long signed URLs are
    good for, `routes` holds the finer points of the protocol.
    """

    def __init__(
        self,
        repositories: dict[str, Repository],
        *,
        token: str = "hf_test",
        rate: float | None = None,
        port: int = 0,
    ) -> None:
        self.repositories, self.token, self.rate = repositories, token, rate
        self.log, self.faults = Log(), Faults()
        self.storage = Storage(repositories)
        self.routes = Routes(repositories, self.storage, token)
        self._kept = tempfile.TemporaryDirectory(prefix="hub-")
        self.uploads = Uploads(repositories, self.storage, token, Path(self._kept.name))
        names: list[Origin] = ["hub", "storage", "elsewhere"]
        self.origins: dict[Origin, Server] = {
            name: Server(self, name, port and port + n) for n, name in enumerate(names)
        }
        self.endpoint = self.routes.hub_url = self.uploads.hub_url = self.origins["hub"].url
        self.routes.storage_url = self.uploads.storage_url = self.origins["storage"].url

    def __enter__(self) -> Hub:
        for server in self.origins.values():
            server.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for server in self.origins.values():
            server.stop()
        self._kept.cleanup()

    def move(self, repository: str, ref: str, commit: str) -> None:
        """Point a branch at another commit."""
        if commit not in self.repositories[repository].commits:
            raise ValueError(f"{repository} has no commit {commit}")
        self.repositories[repository].refs[ref] = commit

    def answer(self, origin: Origin, method: str, target: str, asked: dict[str, str], posted: bytes) -> Answer:
        if origin == "hub":
            uploaded = self.uploads.answer(target, asked, posted) if method == "POST" else None
            return uploaded or self.routes.answer(method, target, asked, posted)
        if method == "PUT":
            return self.uploads.put(target, posted)
        return self.storage.answer(target, asked)


def main() -> None:
    parser = argparse.ArgumentParser(description="Serve a folder as a repository of a stand-in Hub.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--repo", help="its name there, org/name (default: local/ and the name of the folder)")
    parser.add_argument("--port", type=int, default=8900, help="of the Hub; the storage host has the next one")
    parser.add_argument("--rate", type=float, metavar="MB/s", help="limit of every connection")
    parser.add_argument("--token", default="hf_local", help="the one that is granted access")
    parser.add_argument("--private", action="store_true")
    parser.add_argument("--gated", action="store_true")
    parser.add_argument("--xet", action="store_true", help="as if the files were kept by Xet")
    parser.add_argument("--unhashed", action="store_true", help="make up the sha256 of files, to read none for it")
    given = parser.parse_args()
    folder = given.folder.resolve()
    if not folder.is_dir():
        parser.error(f"{given.folder} is no folder")
    name = given.repo or f"local/{folder.name}"
    repository = Repository(
        folder, private=given.private, gated=given.gated, xet=given.xet, hashed=not given.unhashed
    )
    ends = {signal.SIGINT, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, ends)
    rate = given.rate and given.rate * 1e6
    with Hub({name: repository}, token=given.token, rate=rate, port=given.port) as hub:
        token = f"HF_TOKEN={given.token} " if given.private or given.gated else ""
        print(f"{name} at {repository.commit}, Ctrl-C to end. Type elsewhere:\n")
        print(
            f"  HF_ENDPOINT={hub.endpoint} {token}gatenorm-stream {name} --out {folder.name}-pruned\n", flush=True
        )
        signal.sigwait(ends)
        for origin in hub.origins:
            print(f"{origin}: {len(hub.log.select(origin))} requests, {hub.log.sent(origin) / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
