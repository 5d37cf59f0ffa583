"""A hostile Hub for `push`, without a network: it answers each of huggingface_hub's own calls as it likes.

No token may go to another origin, nothing over http, nothing into a repository that is public, and no wait that is
asked for may go on for hours.
"""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest.mock import patch
from urllib.parse import urlsplit

import httpx2
from huggingface_hub import constants
from huggingface_hub.utils import _http
from huggingface_hub.utils.tqdm import disable_progress_bars

import gatenorm_stream
from gatenorm_stream.sources.hub import guard
from gatenorm_stream.sources.source import Kind
from gatenorm_stream.writing import upload
from gatenorm_stream.writing.record import read_record
from tests.checkpoints import llama_config, llama_shapes, random_tensors, write_checkpoint
from tests.fuzz.target import Target, number
from tests.fuzz.watch import FindingError, Watch
from tests.fuzz.wires import HUB, LOCATIONS, STORAGE, TOKEN, Wire, response, spoilt

COMMIT = "c" * 40
NAME = "org/name"
MOST_ASKED = 200
LONGEST_WAIT = 1200.0
ODD: tuple[Any, ...] = (None, True, [], {}, "", "x", "\x1b[2J\n", -1, 0, 1.5, 10**30, [[]], {"": None}, *LOCATIONS)


class _Clock:
    """Sleeps for nobody, and knows how long it was asked to."""

    def __init__(self) -> None:
        self.slept = 0.0

    def sleep(self, seconds: float) -> None:
        self.slept += seconds

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)


class Pushes:
    def __init__(self, folder: Path, watch: Watch) -> None:
        self.watch = watch
        root = folder / "pushes"
        source = write_checkpoint(root / "source", random_tensors(llama_shapes()), llama_config(), shards=1)
        self._out = root / "out"
        gatenorm_stream.prune(gatenorm_stream.plan(source, layers=[1]), self._out)
        self._plan, self._files = read_record(self._out)
        self._rng, self._spoils, self._clock = random.Random(0), 0.0, _Clock()
        self._broken: list[str] = []
        self._asked: list[str] = []
        self._private: Any = True
        os.environ["HF_TOKEN"] = TOKEN
        for where, name, value in (
            (constants, "ENDPOINT", HUB),
            (constants, "HF_HUB_OFFLINE", False),
            (constants, "HF_HUB_DISABLE_XET", True),
            (_http, "time", self._clock),
            (upload, "guarded_client", self._client),
        ):
            patch.object(where, name, value).start()
        disable_progress_bars()
        self._push()
        if self._broken or not self._asked[-1].endswith("/commit/main"):
            raise FindingError(f"{self._broken}, {self._asked}")

    def targets(self) -> tuple[Target, ...]:
        return (Target("pushes", 0.002, self.push, number),)

    def push(self, data: bytes) -> None:
        self._rng = random.Random(data)
        self._spoils = self._rng.choice((0.05, 0.2, 0.6))
        self._broken.clear()
        self._asked.clear()
        self._clock.slept, self._private = 0.0, True
        self.watch.permit(self._out)
        try:
            self.watch.case(self._push)
        finally:
            self._spoils = 0.0
        if self._broken:
            raise FindingError(self._broken[0])
        if self._clock.slept > LONGEST_WAIT:
            raise FindingError(f"it waited {self._clock.slept:.0f} s, as it was told to")

    def _push(self) -> None:
        page = upload.push(self._out, self._plan, self._files, upload.prepare(NAME, Kind.SAFETENSORS))
        if page != f"{HUB}/{NAME}":
            raise FindingError(f"{page} is not where it went")

    def _client(self, *arguments: Any) -> httpx2.Client:
        """Without the certificates of a real one, which take longer to read than a case."""
        with patch.object(httpx2.Client, "_init_transport", lambda *_, **__: httpx2.MockTransport(self._answer)):
            client: Any = guard.guarded_client(*arguments)
        client._mounts = {}
        return client

    def _answer(self, request: httpx2.Request) -> httpx2.Response:
        url, posted = str(request.url), request.read()
        self._check(url, request.headers, posted)
        wire = self._told(request.method, url, posted)
        return response(spoilt(wire, self._rng) if self._rng.random() < self._spoils / 2 else wire)

    def _check(self, url: str, headers: Mapping[str, str], posted: bytes) -> None:
        self._asked.append(url)
        if len(self._asked) > MOST_ASKED:
            raise FindingError(f"it asks without end, last {url}")
        if urlsplit(url).scheme != "https":
            self._broken.append(f"{url} was asked, after https")
        ours = urlsplit(url).netloc in ("hub.test", "hub.test:443")
        if not ours and (TOKEN in f"{url}{dict(headers)}" or TOKEN.encode() in posted or "cookie" in headers):
            self._broken.append(f"{url} got the token")
        if self._private is not True and "/commit/" in url:
            self._broken.append(f"it goes on though the repository is {self._private!r}")

    def _told(self, method: str, url: str, posted: bytes) -> Wire:
        """What an honest Hub answers, with an odd value in it now and then."""
        path = urlsplit(url).path
        if path == "/api/repos/create":
            said: Any = {"url": f"{HUB}/{NAME}", "name": NAME}
        elif (method, path) == ("GET", f"/api/models/{NAME}"):
            siblings = [{"rfilename": name} for name in (".gitattributes", "README.md", "gatenorm.json")]
            said = {"id": NAME, "sha": COMMIT, "private": True, "siblings": siblings, "tags": []}
        elif path.startswith(f"/api/models/{NAME}/preupload/"):
            files = [each["path"] for each in json.loads(posted)["files"]]
            modes = {name: "lfs" if name.endswith(".safetensors") else "regular" for name in files}
            said = {"files": [{"path": n, "uploadMode": m, "shouldIgnore": False} for n, m in modes.items()]}
        elif path.endswith("/info/lfs/objects/batch"):
            said = self._batch(json.loads(posted)["objects"])
        elif path.startswith(f"/api/models/{NAME}/commit/"):
            said = {"success": True, "commitUrl": f"{HUB}/{NAME}/commit/{COMMIT}", "commitOid": COMMIT}
        elif method == "PUT":
            return Wire(200, (("ETag", '"e"'),), b"")
        else:
            said = {"success": True, "errors": [], "warnings": []}
        if self._rng.random() < self._spoils:
            said = self._odd(said)
        judged = any("yaml" in asked or "/preupload/" in asked for asked in self._asked)  # later ones are redirects
        if (method, path) == ("GET", f"/api/models/{NAME}") and isinstance(said, dict) and not judged:
            self._private = said.get("private")
        body = json.dumps(said).encode()
        return Wire(200, (("Content-Length", str(len(body))), ("Content-Type", "application/json")), body)

    def _batch(self, objects: list[dict[str, Any]]) -> dict[str, Any]:
        """In one piece or in parts; where to, is anybody's guess where answers are spoilt."""
        where = LOCATIONS if self._rng.random() < self._spoils else (f"{STORAGE}/upload", f"{HUB}/upload")
        answers = []
        for each in objects:
            header = {}
            if self._rng.random() < self._spoils:
                header = {
                    "chunk_size": self._rng.choice(("100000", "1", "0", "-1", "x")),
                    "00001": self._rng.choice(where),
                }
            upload_to = {"href": self._rng.choice(where), "header": header}
            verify = {"href": self._rng.choice((f"{HUB}/verify", *where))}
            answers.append({**each, "actions": {"upload": upload_to, "verify": verify}})
        return {"transfer": self._rng.choice(("basic", "multipart")), "objects": answers}

    def _odd(self, said: Any) -> Any:
        """One value in it, however deep, is another."""
        if isinstance(said, dict) and said and self._rng.random() < 0.8:
            key = self._rng.choice(list(said))
            return {**said, key: self._odd(said[key])} if self._rng.random() < 0.9 else _without(said, key)
        if isinstance(said, list) and said and self._rng.random() < 0.8:
            at = self._rng.randrange(len(said))
            return [*said[:at], self._odd(said[at]), *said[at + 1 :]]
        return self._rng.choice(ODD)


def _without(said: dict[str, Any], key: str) -> dict[str, Any]:
    return {k: v for k, v in said.items() if k != key}
