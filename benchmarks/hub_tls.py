"""Processor seconds of reading 1 GB of ranges from a storage host, plain and encrypted.

    python -m benchmarks.hub_tls    # needs openssl, which makes the certificate

On the loopback, 4 MB a request over eight kept connections, as the command reads them. The host is a process of its
own, so that the seconds are the reader's alone. Plain and encrypted take turns.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import ssl
import statistics
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from benchmarks.machine import machine
from gatenorm_stream.sources.hub.answers import answer
from gatenorm_stream.sources.hub.source import DEFAULT_CONNECTIONS

RESULT = Path(__file__).parent / "results" / "hub_tls.json"
BYTES, REQUEST, ROUNDS = 1_000_000_000, 4_000_000, 5
BODY = os.urandom(REQUEST)


class Ranges(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.send_response(206)
        self.send_header("Content-Length", str(REQUEST))
        self.end_headers()
        self.wfile.write(BODY)

    def log_message(self, format: str, *args: object) -> None:
        pass


class Host(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64


def serve(certificate: Path | None) -> None:
    """Prints its port, then serves until it is killed."""
    server = Host(("127.0.0.1", 0), Ranges)
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, certificate.with_name("key.pem"))
        server.socket = context.wrap_socket(server.socket, server_side=True)
    print(server.server_port, flush=True)
    server.serve_forever()


def make_certificate(folder: Path) -> Path:
    path = folder / "certificate.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(folder / "key.pem"), "-out", str(path)]
    subprocess.run(command, check=True, capture_output=True)
    return path


def started(*words: str) -> tuple[subprocess.Popen[str], int]:
    command = [sys.executable, "-m", "benchmarks.hub_tls", "serve", *words]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    return process, int(process.stdout.readline())


def processor_seconds(url: str) -> float:
    """Of this process, for reading BYTES."""

    def fetch(_: int) -> int:
        with answer(url, {"Range": f"bytes=0-{REQUEST - 1}"}, storage=True) as got:
            return sum(map(len, got.blocks))

    begun = resource.getrusage(resource.RUSAGE_SELF)
    with ThreadPoolExecutor(DEFAULT_CONNECTIONS) as pool:
        assert sum(pool.map(fetch, range(BYTES // REQUEST))) == BYTES
    ended = resource.getrusage(resource.RUSAGE_SELF)
    return ended.ru_utime + ended.ru_stime - begun.ru_utime - begun.ru_stime


def main() -> None:
    if shutil.which("openssl") is None:
        sys.exit("openssl makes the certificate, and is not here; install it")
    with tempfile.TemporaryDirectory() as folder:
        certificate = make_certificate(Path(folder))
        os.environ["SSL_CERT_FILE"] = str(certificate)
        hosts = {"http": started(), "https": started(str(certificate))}
        try:
            seconds: dict[str, list[float]] = {scheme: [] for scheme in hosts}
            for _ in range(ROUNDS):
                for scheme, (_, port) in hosts.items():
                    seconds[scheme].append(processor_seconds(f"{scheme}://127.0.0.1:{port}/file?sig=1"))
        finally:
            for process, _ in hosts.values():
                process.kill()
    medians = {scheme: round(statistics.median(of), 3) for scheme, of in seconds.items()}
    for scheme, median in medians.items():
        rounds = ", ".join(f"{s:.2f}" for s in seconds[scheme])
        print(f"{scheme:<5} {median:.2f} s of processor time for {BYTES / 1e9:.0f} GB (rounds: {rounds})")
    rounded = {scheme: [round(s, 3) for s in of] for scheme, of in seconds.items()}
    result = {"machine": machine(), "bytes": BYTES, "processor_seconds": medians, "rounds": rounded}
    RESULT.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        serve(Path(sys.argv[2]) if sys.argv[2:] else None)
    else:
        main()
