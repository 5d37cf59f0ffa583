"""A proxy that is set is used for everything, the storage host's bytes included."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.hub.hub_runs import Run, contents
from tests.hub.hub_server import Hub

pytestmark = pytest.mark.slow


class Forward(BaseHTTPRequestHandler):
    """Forwards plain HTTP requests, whose target is a whole URL."""

    protocol_version = "HTTP/1.1"
    seen: list[str] = []  # noqa: RUF012

    def do_GET(self) -> None:
        self.seen.append(self.path)
        parts = urlsplit(self.path)
        upstream = http.client.HTTPConnection(parts.netloc)
        upstream.request("GET", f"{parts.path}?{parts.query}", headers=dict(self.headers))
        response = upstream.getresponse()
        body = response.read()
        self.send_response_only(response.status)
        for name, value in response.getheaders():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
        upstream.close()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def proxy() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Forward)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_all_goes_through_a_proxy(
    run: Run, hub: Hub, proxy: str, tmp_path: Path, pruned_locally: dict[str, str]
) -> None:
    Forward.seen.clear()
    done = run("org/sotu", "--out", "out", HTTP_PROXY=proxy, http_proxy=proxy, NO_PROXY="", no_proxy="")
    assert done.returncode == 0, done.stderr
    assert contents(tmp_path / "out") == pruned_locally
    assert len([r for r in hub.log if r.method == "GET"]) == len(Forward.seen)
    assert any(urlsplit(url).netloc == urlsplit(hub.origins["storage"].url).netloc for url in Forward.seen)
