"""The stand-in Hub speaks the protocol: to the real client, and range by range."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.hub.hub_faults import Fault, at
from tests.hub.hub_repository import Repository
from tests.hub.hub_server import Hub

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
BIG = "model-00001-of-00002.safetensors"
OLD, NEW = "a" * 40, "b" * 40

Reply = tuple[int, dict[str, str], bytes]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("repository")
    (folder / "extra").mkdir()
    (folder / "config.json").write_text('{"model_type": "llama"}\n')
    (folder / "extra" / "notes.txt").write_text("notes\n" * 300)
    for n in (1, 2):
        (folder / f"model-0000{n}-of-00002.safetensors").write_bytes(bytes(range(256)) * 400 * n)
    return folder


@pytest.fixture(scope="module")
def newer(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("newer")
    (folder / "config.json").write_text('{"model_type": "mistral"}\n')
    return folder


@pytest.fixture
def hub(folder: Path, newer: Path) -> Iterator[Hub]:
    repositories = {
        "org/open": Repository(folder),
        "org/xet": Repository(folder, xet=True),
        "org/gated": Repository(folder, gated=True),
        "org/private": Repository(folder, private=True),
        "org/two": Repository(commits={OLD: folder, NEW: newer}, refs={"main": OLD, "refs/pr/1": NEW}),
    }
    with Hub(repositories) as hub:
        yield hub


class Client:
    """A connection that is kept alive to every origin; follows no redirects by itself."""

    def __init__(self) -> None:
        self._connections: dict[str, http.client.HTTPConnection] = {}

    def __call__(self, url: str, method: str = "GET", **headers: str) -> Reply:
        parts = urlsplit(url)
        connection = self._connections.setdefault(parts.netloc, http.client.HTTPConnection(parts.netloc, timeout=5))
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        try:
            connection.request(method, f"{parts.path}?{parts.query}", headers=named)
            response = connection.getresponse()
            return response.status, dict(response.headers), response.read()
        except (OSError, http.client.HTTPException):
            connection.close()
            raise


@pytest.fixture
def get() -> Client:
    return Client()


def signed(hub: Hub, get: Client, name: str = "org/open", file: str = BIG) -> str:
    status, headers, _ = get(f"{hub.endpoint}/{name}/resolve/main/{file}", "HEAD")
    assert status == 302
    return headers["Location"]


CLIENT = """
import json, sys
import huggingface_hub as hf
def outcome(expression):
    try:
        return str(eval(expression))
    except Exception as error:
        return f"{type(error).__name__} {error}"
print(json.dumps([outcome(expression) for expression in json.load(sys.stdin)]))
"""


def ask(hub: Hub, home: Path, *expressions: str, **environment: str) -> list[str]:
    """What the real client makes of these expressions, in a process of its own."""
    process = subprocess.run(
        [sys.executable, "-c", CLIENT],
        input=json.dumps(expressions),
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "HF_ENDPOINT": hub.endpoint,
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            **environment,
        },
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert process.returncode == 0, process.stderr
    outcomes: list[str] = json.loads(process.stdout)
    return outcomes


# The real client


def test_the_client_reads_a_repository(hub, folder, tmp_path):
    hub.routes.page = 2
    sha, files, listed, sizes, allowed, snapshot, xet = ask(
        hub,
        tmp_path,
        "hf.model_info('org/open').sha",
        "sorted(s.rfilename for s in hf.model_info('org/open', files_metadata=True).siblings)",
        "sorted(f.path for f in hf.list_repo_tree('org/open', recursive=True))",
        f"[f.size for f in hf.get_paths_info('org/open', ['config.json', 'absent', '{BIG}'])]",
        "hf.auth_check('org/open')",
        "hf.snapshot_download('org/open')",
        "hf.snapshot_download('org/xet')",
    )
    names = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*"))
    assert sha == hub.repositories["org/open"].commit
    assert files == str([name for name in names if name != "extra"])
    assert listed == str(names)
    assert sizes == str([24, 102_400])
    assert allowed == "None"
    for path in (snapshot, xet):
        assert path.endswith(sha)
        for name in files[2:-2].split("', '"):
            assert Path(path, name).read_bytes() == (folder / name).read_bytes()
    blobs = {blob.name for blob in Path(snapshot).parents[1].joinpath("blobs").iterdir()}
    assert hashlib.sha256((folder / BIG).read_bytes()).hexdigest() in blobs


def test_the_client_finds_revisions(hub, tmp_path):
    call = "open(hf.hf_hub_download('org/two', 'config.json', revision={!r})).read()"
    main, commit, request, wrong, absent = ask(
        hub,
        tmp_path,
        *(call.format(revision) for revision in ("main", NEW, "refs/pr/1", "nowhere")),
        "hf.hf_hub_download('org/two', 'absent.json')",
    )
    assert "llama" in main
    assert "mistral" in commit
    assert "mistral" in request
    assert wrong.startswith("RevisionNotFoundError")
    assert absent.startswith("RemoteEntryNotFoundError")
    hub.move("org/two", "main", NEW)
    assert ask(hub, tmp_path, "hf.model_info('org/two').sha", call.format("main")) == [NEW, request]


@pytest.mark.parametrize(
    ("token", "gated", "private"),
    [
        ("", "GatedRepoError 401", "RepositoryNotFoundError 401"),
        ("hf_stranger", "GatedRepoError 403", "RepositoryNotFoundError 404"),
        ("hf_wrong", "HfHubHTTPError Client error '401", "HfHubHTTPError Client error '401"),
        ("hf_test", "/", "/"),
    ],
)
def test_the_client_is_told_why_it_has_no_access(hub, tmp_path, token, gated, private):
    file = "hf.hf_hub_download('org/{}', '" + BIG + "')"
    outcomes = ask(hub, tmp_path, file.format("gated"), file.format("private"), HF_TOKEN=token)
    assert [outcome.startswith(begin) for outcome, begin in zip(outcomes, (gated, private), strict=True)] == [
        True,
        True,
    ], outcomes
    assert {request.authorization for request in hub.log.select("storage")} <= {None}
    assert hub.log.sent("storage") == (2 * 102_400 if token == "hf_test" else 0)


# Ranges


@pytest.mark.parametrize(
    ("asked", "start", "end"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=100-355", 100, 356),
        ("bytes=102000-", 102_000, 102_400),
        ("bytes=-5", 102_395, 102_400),
    ],
)
def test_ranges(hub, folder, get, asked, start, end):
    status, headers, body = get(signed(hub, get), Range=asked)
    assert (status, headers["Content-Range"]) == (206, f"bytes {start}-{end - 1}/102400")
    assert body == (folder / BIG).read_bytes()[start:end]
    assert hub.log.sent(file=BIG, origin="storage") == end - start


def test_unsatisfiable_range(hub, get):
    status, headers, _ = get(signed(hub, get), Range="bytes=102400-")
    assert (status, headers["Content-Range"]) == (416, "bytes */102400")


def test_conditions(hub, get):
    url = signed(hub, get)
    etag = get(url, "HEAD")[1]["ETag"]
    assert get(url, Range="bytes=0-9", If_Range=etag)[0] == 206
    assert get(url, Range="bytes=0-9", If_Range='"other"')[0] == 200
    assert get(url, Range="bytes=0-9", If_Match='"other"')[0] == 412


def test_a_resolve_says_what_is_behind_it(hub, folder, get):
    url = f"{hub.endpoint}/org/xet/resolve/main/"
    _, headers, _ = get(url + BIG, "HEAD")
    digest = hashlib.sha256((folder / BIG).read_bytes()).hexdigest()
    assert headers["X-Linked-Etag"] == f'"{digest}"'
    assert headers["X-Linked-Size"] == "102400"
    assert headers["X-Repo-Commit"] == hub.repositories["org/xet"].commit
    assert 'rel="xet-auth"' in headers["Link"]
    assert get(headers["Location"], "HEAD")[1]["ETag"] != headers["X-Linked-Etag"]
    status, headers, _ = get(url + "config.json", "HEAD")
    assert status == 307
    status, _, body = get(hub.endpoint + headers["Location"], Range="bytes=2-11")
    assert (status, body) == (206, b"model_type")


def test_sparse_files_are_neither_read_nor_hashed_whole(tmp_path, get):
    with (tmp_path / "model.safetensors").open("wb") as file:
        file.truncate(26_000_000_000)
    with Hub({"org/huge": Repository(tmp_path, hashed=False)}) as hub:
        url = signed(hub, get, "org/huge", "model.safetensors")
        status, headers, body = get(url, Range="bytes=25999999990-25999999999")
    assert (status, headers["Content-Range"][-11:], body) == (206, "26000000000", b"\0" * 10)


def test_connections_are_kept_and_counted(hub, get):
    url = signed(hub, get)
    for n in range(5):
        get(url, Range=f"bytes={n}-{n}")
    storage = hub.log.select("storage")
    assert len({request.connection for request in storage}) == 1
    others = [Client() for _ in range(3)]
    for other in others:
        other(url, Range="bytes=0-0")
    assert hub.origins["storage"].peak == hub.origins["storage"].connections == 4
    assert hub.log.by_origin() == {"hub": 1, "storage": 8}


def test_every_connection_is_paced(hub, get):
    urls = [signed(hub, get) for _ in range(4)]
    hub.rate = 400_000
    threads = [threading.Thread(target=Client(), args=(url,)) for url in urls]
    start = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.monotonic() - start
    assert 0.2 < seconds < 0.9  # 0.256 s for one and, at the same time, for all; 1.02 s one after the other
    assert hub.log.sent("storage") == 4 * 102_400


# Signed URLs


def test_signed_urls_expire(hub, get):
    hub.storage.signer.lifetime = -1
    assert get(signed(hub, get))[0] == 403
    hub.storage.signer.lifetime = 60
    url = signed(hub, get)
    assert get(url, "HEAD")[0] == 200
    assert get(url.replace("expires=", "expires=9"), "HEAD")[0] == 403
    hub.storage.signer.expire()
    status, headers, body = get(url)
    assert status == 403
    assert b"AccessDenied" in body
    assert "X-Error-Code" not in headers
    assert get(signed(hub, get), "HEAD")[0] == 200


def test_signed_urls_for_one_request(hub, get):
    hub.storage.signer.single_use = True
    url = signed(hub, get)
    assert [get(url, "HEAD")[0] for _ in range(2)] == [200, 403]


# Faults


def part(hub: Hub, get: Client, *faults: Fault) -> Reply:
    """One range of 1000 bytes from the storage host, with these faults."""
    url = signed(hub, get)
    hub.faults.add(*faults)
    return get(url, Range="bytes=1000-1999", Accept_Encoding="gzip")


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_statuses(hub, get, status):
    reply, headers, _ = part(hub, get, Fault("status", status, at("storage"), retry_after=7))
    assert (reply, headers["Retry-After"]) == (status, "7")
    assert part(hub, get)[0] == 206


def test_faults_strike_where_and_when_told(hub, get):
    url = signed(hub, get)
    hub.faults.add(Fault("status", 500, at("storage", "*.safetensors", ranged=True), skip=1, times=2))
    assert [get(url, Range="bytes=0-9")[0] for _ in range(2)] == [206, 500]
    assert get(url)[0] == 200
    assert get(f"{hub.endpoint}/org/open/resolve/main/config.json", Range="bytes=0-9")[0] == 307
    assert [get(url, Range="bytes=0-9")[0] for _ in range(2)] == [500, 206]
    assert [request.fault for request in hub.log.select("storage")] == ["", "status", "", "status", ""]


def test_drop(hub, get):
    with pytest.raises(http.client.RemoteDisconnected):
        part(hub, get, Fault("drop"))
    assert hub.log.select("storage")[-1].status == 0
    assert part(hub, get)[0] == 206


def test_truncate(hub, get):
    with pytest.raises(http.client.IncompleteRead) as error:
        part(hub, get, Fault("truncate", 300))
    assert len(error.value.partial) == 300
    assert hub.log.sent("storage") == 300


def test_stall(hub):
    impatient = Client()
    url = signed(hub, impatient)
    impatient._connections[urlsplit(url).netloc] = http.client.HTTPConnection(urlsplit(url).netloc, timeout=0.2)
    hub.faults.add(Fault("stall"))
    with pytest.raises(TimeoutError):
        impatient(url, Range="bytes=0-999")
    assert hub.log.sent("storage") == 500


def test_a_stalled_connection_does_not_hold_up_the_end(folder, get):
    with Hub({"org/open": Repository(folder)}) as hub:
        url = signed(hub, get)
        hub.faults.add(Fault("stall"))

        def wait() -> None:
            with suppress(http.client.IncompleteRead):
                get(url)

        thread = threading.Thread(target=wait)
        thread.start()
        while not hub.log.sent("storage"):
            time.sleep(0.005)
    thread.join(2)
    assert not thread.is_alive()


def test_wrong_answers_to_a_range(hub, folder, get):
    data = (folder / BIG).read_bytes()
    right = "bytes 1000-1999/102400"
    status, headers, body = part(hub, get, Fault("ignore-range"))
    assert (status, headers.get("Content-Range"), body) == (200, None, data)
    status, headers, body = part(hub, get, Fault("wrong-range", 5))
    assert (status, headers["Content-Range"], body) == (206, "bytes 1005-2004/102400", data[1000:2000])
    status, headers, body = part(hub, get, Fault("short", 10))
    assert (status, headers["Content-Range"], body) == (206, "bytes 1000-1009/102400", data[1000:1010])
    status, headers, body = part(hub, get, Fault("wrong-length", -1))
    assert (status, headers["Content-Range"], body) == (206, right, data[1000:1999])
    status, headers, body = part(hub, get, Fault("corrupt"))
    assert (status, headers["Content-Range"], body[1:]) == (206, right, data[1001:2000])
    assert body[0] != data[1000]
    status, headers, body = part(hub, get, Fault("gzip"))
    assert (status, headers["Content-Encoding"]) == (200, "gzip")
    assert len(body) < 10_000


def test_a_changing_etag(hub, get):
    url = signed(hub, get)
    hub.faults.add(Fault("etag", match=at("storage"), skip=2, times=None))
    etags = [get(url, "HEAD")[1]["ETag"] for _ in range(4)]
    assert etags[0] == etags[1] != etags[2] == etags[3]


def test_expired(hub, get):
    assert part(hub, get, Fault("expired"))[0] == 403
    assert part(hub, get)[0] == 206


def test_a_third_host(hub, folder, get):
    status, headers, _ = part(hub, get, Fault("redirect", match=at("storage")))
    assert (status, headers["Location"].startswith(hub.origins["elsewhere"].url)) == (302, True)
    assert get(headers["Location"])[2] == (folder / BIG).read_bytes()
    assert [request.file for request in hub.log.select("elsewhere")] == [BIG]


# The program


def test_the_program(folder, tmp_path, get):
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.hub.hub_server", folder, "--port", "0", "--gated"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout
        lines = [process.stdout.readline() for _ in range(3)]
        endpoint, token, command, name, *_ = lines[2].split()
        assert (token, command) == ("HF_TOKEN=hf_local", "gatenorm-stream")
        url = f"{endpoint.removeprefix('HF_ENDPOINT=')}/{name}/resolve/main/{BIG}"
        assert get(url, "HEAD")[0] == 401
        assert get(url, "HEAD", Authorization="Bearer hf_local")[0] == 302
        process.send_signal(signal.SIGINT)
        rest, _ = process.communicate(timeout=5)
        assert process.returncode == 0
        assert "hub: 2 requests" in rest
    finally:
        process.kill()
