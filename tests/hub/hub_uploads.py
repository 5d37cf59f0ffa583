"""What the stand-in Hub takes: repositories, files by git or LFS, commits. It speaks as huggingface_hub expects it,
without Xet and without uploads in parts.

Of the checks of a model card's metadata only those are made here that the Hub's documentation states.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import threading
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import yaml

from tests.hub.hub_answer import Answer, data, denied, error, structure
from tests.hub.hub_repository import File, Repository
from tests.hub.hub_storage import Storage

PREUPLOAD = re.compile(r"/api/models/([^/]+/[^/]+)/preupload/([^/]+)")
BATCH = re.compile(r"/([^/]+/[^/]+)\.git/info/lfs/objects/batch")
VERIFY = re.compile(r"/([^/]+/[^/]+)\.git/info/lfs/verify")
COMMIT = re.compile(r"/api/models/([^/]+/[^/]+)/commit/([^/]+)")
RELATIONS = ("adapter", "merge", "quantized", "finetune")


class Uploads:
    """`folder` keeps the large files by their sha256, and a folder for each commit. Who has `token` may write to
    all repositories, and make new ones in `namespaces`."""

    def __init__(self, repositories: dict[str, Repository], storage: Storage, token: str, folder: Path) -> None:
        self.repositories, self.storage, self.token, self.folder = repositories, storage, token, folder
        self.namespaces = ("org",)
        self.always_public = False  # an organisation whose rules override what was asked for
        self.storage_url = self.hub_url = ""
        self._lock = threading.Lock()
        (folder / "lfs").mkdir(parents=True)
        (folder / "commits").mkdir()

    def answer(self, target: str, asked: Mapping[str, str], posted: bytes) -> Answer | None:
        """None for what is no upload."""
        path = urlsplit(target).path
        routes = {PREUPLOAD: self._preupload, BATCH: self._batch, VERIFY: self._verify, COMMIT: self._commit}
        found = [(match, route) for pattern, route in routes.items() if (match := pattern.fullmatch(path))]
        if not found and path not in ("/api/repos/create", "/api/validate-yaml"):
            return None
        if path == "/api/validate-yaml":
            return _validated(json.loads(posted)["content"])
        if asked.get("Authorization") != f"Bearer {self.token}":
            return error(401, "", "Invalid username or password.")
        if path == "/api/repos/create":
            return self._create(json.loads(posted))
        match, route = found[0]
        name = unquote(match[1])
        if name not in self.repositories:
            return error(404, "RepoNotFound", "Repository not found")
        with self._lock:
            return route(self.repositories[name], name, posted)

    def put(self, target: str, posted: bytes) -> Answer:
        """What the storage host says to the content of a large file."""
        parts = urlsplit(target)
        if complaint := self.storage.signer.complaint(parts.path, parts.query):
            return denied(complaint)
        sha256 = parts.path.rpartition("/")[2]
        if hashlib.sha256(posted).hexdigest() != sha256:
            return replace(data(b"", "application/xml"), status=400)
        return data(b"", "text/plain")

    def keep(self, target: str, posted: bytes) -> None:
        """Once it is sure that nothing went wrong on the way."""
        (self.folder / "lfs" / urlsplit(target).path.rpartition("/")[2]).write_bytes(posted)

    def _create(self, wanted: dict[str, Any]) -> Answer:
        name = f"{wanted['organization']}/{wanted['name']}"
        page = {"url": f"{self.hub_url}/{name}", "name": name}
        if name in self.repositories:
            return replace(structure({"error": "You already created this model repo", **page}), status=409)
        if wanted["organization"] not in self.namespaces:
            return error(403, "", f"You don't have the rights to create a model under the namespace {name}")
        first = self._folder(name, "", {".gitattributes": b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n"})
        private = wanted.get("visibility") == "private" and not self.always_public
        self.repositories[name] = Repository(first, private=private)
        return structure(page)

    def _preupload(self, repository: Repository, name: str, posted: bytes) -> Answer:
        files = []
        for wanted in json.loads(posted)["files"]:
            held = repository.file(repository.commit, wanted["path"])
            mode = "lfs" if _is_lfs(wanted["path"], wanted["size"]) else "regular"
            oid = None if held is None else held.sha256 if mode == "lfs" else held.blob
            entry = {"path": wanted["path"], "uploadMode": mode, "shouldIgnore": False}
            files.append(entry | ({"oid": oid} if oid else {}))
        return structure({"files": files})

    def _batch(self, repository: Repository, name: str, posted: bytes) -> Answer:
        objects = []
        for wanted in json.loads(posted)["objects"]:
            entry: dict[str, Any] = {"oid": wanted["oid"], "size": wanted["size"]}
            if not (self.folder / "lfs" / wanted["oid"]).is_file():
                upload = self.storage.url(self.storage_url, f"upload/{wanted['oid']}")
                verify = f"{self.hub_url}/{name}.git/info/lfs/verify"
                entry["actions"] = {"upload": {"href": upload}, "verify": {"href": verify}}
            objects.append(entry)
        return structure({"transfer": "basic", "objects": objects})

    def _verify(self, repository: Repository, name: str, posted: bytes) -> Answer:
        wanted = json.loads(posted)
        path = self.folder / "lfs" / wanted["oid"]
        if path.is_file() and path.stat().st_size == wanted["size"]:
            return structure({"success": True})
        return error(400, "", "The file is not there, or of another size")

    def _commit(self, repository: Repository, name: str, posted: bytes) -> Answer:
        lines = [json.loads(line) for line in posted.splitlines() if line.strip()]
        header = lines.pop(0)["value"]
        parent = header.get("parentCommit")
        if parent and parent != repository.commit:
            return error(412, "", "A commit has happened since. Please refresh and try again.")
        changes: dict[str, bytes | Path | None] = {}
        for line in lines:
            value = line["value"]
            match line["key"]:
                case "file":
                    changes[value["path"]] = base64.b64decode(value["content"])
                case "lfsFile":
                    changes[value["path"]] = self.folder / "lfs" / value["oid"]
                    if not (self.folder / "lfs" / value["oid"]).is_file():
                        return error(400, "", f"LFS pointer pointed to a file that does not exist: {value['oid']}")
                case "deletedFile":
                    changes[value["path"]] = None
        held = {file.name: file.path for file in repository.files(repository.commit)}
        content = {path: c for path, c in {**held, **changes}.items() if c is not None}
        commit = hashlib.sha1(repository.commit.encode() + posted).hexdigest()
        repository.commits[commit] = self._folder(name, commit, content)
        repository.refs["main"] = commit
        return structure(
            {"success": True, "commitUrl": f"{self.hub_url}/{name}/commit/{commit}", "commitOid": commit}
        )

    def _folder(self, name: str, commit: str, content: Mapping[str, bytes | Path]) -> Path:
        folder = self.folder / "commits" / f"{name.replace('/', '--')}-{commit[:12]}"
        for path, what in content.items():
            target = folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(what, Path):
                shutil.copyfile(what, target)
            else:
                target.write_bytes(what)
        return folder


def _is_lfs(path: str, size: int) -> bool:
    return (size > 0 and File(path, Path("/dev/null"), "").is_lfs) or size > 10_000_000


def _validated(card: str) -> Answer:
    front = re.match(r"---\n(.*?)\n---\n", card, re.DOTALL)
    if not front:
        return structure({"errors": [], "warnings": [{"message": "empty or missing yaml metadata in repo card"}]})
    try:
        metadata = yaml.safe_load(front[1])
    except yaml.YAMLError as problem:
        return _invalid(str(problem).splitlines()[0])
    errors = [f'"{k}" must be a string or an array of strings' for k in TEXTS if not _texts(metadata.get(k, "x"))]
    if metadata.get("base_model_relation", RELATIONS[0]) not in RELATIONS:
        errors.append(f'"base_model_relation" must be one of {", ".join(RELATIONS)}')
    for base in _listed(metadata.get("base_model", [])):
        if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", str(base)):
            errors.append(f'"base_model" {base} is not a valid model id')
    if metadata.get("license") == "other" and not metadata.get("license_name"):
        errors.append('"license_name" is required where "license" is other')
    return _invalid(*errors) if errors else structure({"errors": [], "warnings": []})


TEXTS = ("license", "language", "tags", "base_model", "library_name", "pipeline_tag")


def _texts(value: Any) -> bool:
    return all(isinstance(text, str) for text in _listed(value))


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _invalid(*messages: str) -> Answer:
    errors = [{"message": message} for message in messages]
    return replace(structure({"error": messages[0], "errors": errors, "warnings": []}), status=400)
