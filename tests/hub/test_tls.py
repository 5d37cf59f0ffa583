"""Bytes over https: the certificate is checked as the session checks it, and the connection is kept alive."""

from __future__ import annotations

import os
import shutil
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate"),
]

FETCH = """
import sys
from gatenorm_stream.sources.hub.answers import answer

connections = set()
for storage in (True, True, False):
    with answer(sys.argv[1], {"Range": "bytes=0-9"}, storage=storage) as got:
        assert (got.status, b"".join(got.blocks)) == (206, b"0123456789")
        if storage:
            connections.add(got.headers["x-connection"])
assert len(connections) == 1
"""


class Ten(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.send_response(206)
        self.send_header("Content-Length", "10")
        self.send_header("X-Connection", str(self.client_address[1]))
        self.end_headers()
        self.wfile.write(b"0123456789")

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For 127.0.0.1, signed by itself, with its key beside it."""
    path = tmp_path_factory.mktemp("tls") / "certificate.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    command += [
        "-addext",
        "subjectAltName=IP:127.0.0.1",
        "-keyout",
        str(path.with_name("key.pem")),
        "-out",
        str(path),
    ]
    subprocess.run(command, check=True, capture_output=True)
    return path


@pytest.fixture
def url(certificate: Path) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Ten)
    server.daemon_threads = True
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, certificate.with_name("key.pem"))
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"https://127.0.0.1:{server.server_port}/file?sig=1"
    server.shutdown()
    server.server_close()


def fetch(url: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", FETCH, url]
    return subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=30)


def test_a_trusted_certificate(url: str, certificate: Path) -> None:
    done = fetch(url, SSL_CERT_FILE=str(certificate))
    assert done.returncode == 0, done.stderr


def test_an_unknown_certificate_is_refused(url: str) -> None:
    assert "SSLCertVerificationError" in fetch(url).stderr
