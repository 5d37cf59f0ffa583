"""The routes of the stand-in Hub that reading a model needs."""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

from tests.hub.hub_answer import Answer, content, error, redirect, structure
from tests.hub.hub_repository import File, Repository
from tests.hub.hub_storage import Storage

API = re.compile(
    r"/api/models/([^/]+/[^/]+)(?:/(revision|tree|paths-info|refs|auth-check|xet-read-token)(?:/([^/]+))?(?:/(.+))?)?"
)
RESOLVE = re.compile(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)")
RESOLVE_CACHE = re.compile(r"/api/resolve-cache/models/([^/]+/[^/]+)/([^/]+)/(.+)")


class Routes:
    """Answers by what the repositories hold; `token` has access to all of them, `strangers` are valid tokens
    of people who were given access to none, and any other token is wrong."""

    def __init__(self, repositories: Mapping[str, Repository], storage: Storage, token: str) -> None:
        self.repositories, self.storage, self.token = repositories, storage, token
        self.strangers = ("hf_stranger",)
        self.page = 1000  # entries of a tree in one answer
        self.resolve_cache = True
        self.sizes = True  # in the list of files; mirrors may leave them out, and digests too
        self.etag: Callable[[File], str] | None = None  # a mirror's own
        self.below = ""  # the path that a mirror stands below
        self.more: tuple[str, ...] = ()  # names in the list that no file has
        self.hub_url = self.storage_url = ""

    def answer(self, method: str, target: str, asked: Mapping[str, str], posted: bytes) -> Answer:
        if self.below and not target.startswith(self.below):
            return error(404, "", "Nothing is outside the mirror.")
        parts = urlsplit(target.removeprefix(self.below))
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        if match := RESOLVE_CACHE.fullmatch(parts.path):
            return self._file(match, asked, cached=True)
        if match := RESOLVE.fullmatch(parts.path):
            return self._file(match, asked, cached=False)
        if parts.path == "/api/models":
            return structure(self._listed(query))
        if match := API.fullmatch(parts.path):
            name, verb, revision, rest = (unquote(group or "") for group in match.groups())
            return self._api(name, verb or "revision", revision or "main", rest, query, asked, posted)
        return error(404, "", "Sorry, we can't find the page you are looking for.")

    def _listed(self, query: Mapping[str, str]) -> list[dict[str, str]]:
        """Public repositories of an `author`, or whose name holds `search`."""
        public = [name for name, repository in self.repositories.items() if not repository.private]
        author, search = query.get("author"), query.get("search", "").lower()
        found = [n for n in public if author in (None, n.partition("/")[0]) and search in n.lower()]
        return [{"id": name} for name in found[: int(query.get("limit", "1000"))]]

    def _refusal(self, name: str, asked: Mapping[str, str], *, content: bool) -> Answer | None:
        """What the Hub tells whom it does not serve. It does not tell outsiders what does not exist from what
        is private; the names of the files of a gated repository are public, their content is not."""
        repository, given = self.repositories.get(name), asked.get("Authorization")
        token = given.removeprefix("Bearer ") if given else None
        if token not in (None, self.token, *self.strangers):
            return error(401, "", "Invalid credentials in Authorization header")
        if repository is None or (repository.private and token != self.token):
            if token is None:
                return error(401, "RepoNotFound", "Invalid username or password.")
            return error(404, "RepoNotFound", "Repository not found")
        if content and repository.gated and token != self.token:
            restricted = f"Access to model {name} is restricted"
            if token is None:
                advice = "You must have access to it and be authenticated to access it. Please log in."
                return error(401, "GatedRepo", f"{restricted}. {advice}")
            advice = f"Visit https://huggingface.co/{name} to ask for access."
            return error(403, "GatedRepo", f"{restricted} and you are not in the authorized list. {advice}")
        return None

    def _file(self, match: re.Match[str], asked: Mapping[str, str], cached: bool) -> Answer:
        """/resolve. What git keeps is answered here, after a redirect to an address that can be cached (the
        token is needed there as well); what LFS or Xet keeps, with a redirect to the storage host."""
        name, revision, path = map(unquote, match.groups())
        if refusal := self._refusal(name, asked, content=True):
            return refusal
        repository = self.repositories[name]
        commit = repository.resolve(revision)
        if commit is None:
            return error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        file = repository.file(commit, path)
        if file is None:
            return error(404, "EntryNotFound", "Entry not found", X_Repo_Commit=commit)
        return replace(self._found(name, commit, file, asked, cached), key=f"{name}/{commit}/{path}")

    def _found(self, name: str, commit: str, file: File, asked: Mapping[str, str], cached: bool) -> Answer:
        path, repository = file.name, self.repositories[name]
        if file.is_lfs:
            location = self.storage.url(self.storage_url, f"{name}/{commit}/{path}")
            own = self.etag(file) if self.etag else None
            answer = redirect(302, location, path, X_Repo_Commit=commit, ETag=f'"{own or file.blob}"')
            answer = answer.headed(X_Linked_Size=str(file.size), X_Linked_Etag=f'"{own or file.sha256}"')
            if repository.xet:
                answer = answer.headed(X_Xet_Hash=file.xet_hash, Link=self._xet_links(name, commit, file))
            return answer.headed(Accept_Ranges="bytes")
        if self.resolve_cache and not cached:
            location = quote(f"/api/resolve-cache/models/{name}/{commit}/{path}") + f"?etag=%22{file.blob}%22"
            return redirect(307, location, path, X_Repo_Commit=commit, ETag=f'"{file.blob}"')
        return content(file, self.etag(file) if self.etag else file.blob, asked, X_Repo_Commit=commit)

    def _xet_links(self, name: str, commit: str, file: File) -> str:
        token = f"<{self.hub_url}/api/models/{name}/xet-read-token/{commit}>"
        reconstruction = f"<{self.storage_url}/v1/reconstructions/{file.xet_hash}>"
        return f'{token}; rel="xet-auth", {reconstruction}; rel="xet-reconstruction-info"'

    def _api(
        self,
        name: str,
        verb: str,
        revision: str,
        rest: str,
        query: Mapping[str, str],
        asked: Mapping[str, str],
        posted: bytes,
    ) -> Answer:
        if refusal := self._refusal(name, asked, content=verb in ("auth-check", "xet-read-token")):
            return refusal
        repository = self.repositories[name]
        if verb == "auth-check":
            return structure({})
        if verb == "refs":
            refs = [
                {"name": ref, "ref": f"refs/heads/{ref}", "targetCommit": commit}
                for ref, commit in repository.refs.items()
            ]
            return structure({"branches": refs, "tags": [], "converts": []})
        commit = repository.resolve(revision)
        if commit is None:
            return error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        verbs: dict[str, Callable[[], Answer]] = {
            "revision": lambda: structure(self._information(name, repository, commit, "blobs" in query)),
            "tree": lambda: self._tree(name, repository, commit, rest, query),
            "paths-info": lambda: self._paths(repository, commit, posted),
            "xet-read-token": self._xet_token,
        }
        return verbs[verb]()

    def _information(self, name: str, repository: Repository, commit: str, blobs: bool) -> dict[str, Any]:
        siblings: list[dict[str, Any]] = []
        for file in repository.files(commit):
            siblings.append({"rfilename": file.name})
            if blobs and self.sizes:
                siblings[-1] |= {"size": file.size, "blobId": file.blob}
                if file.is_lfs:
                    siblings[-1]["lfs"] = {"sha256": file.sha256, "size": file.size, "pointerSize": 134}
        siblings += [{"rfilename": name, "size": 1, "blobId": "0" * 40} for name in self.more]
        return {
            "_id": hashlib.sha1(name.encode()).hexdigest()[:24],
            "id": name,
            "modelId": name,
            "author": name.split("/")[0],
            "sha": commit,
            "private": repository.private,
            "gated": "manual" if repository.gated else False,
            "disabled": False,
            "lastModified": "2026-01-01T00:00:00.000Z",
            "createdAt": "2026-01-01T00:00:00.000Z",
            "downloads": 0,
            "likes": 0,
            "tags": ["safetensors"],
            "siblings": siblings,
        }

    def _tree(
        self, name: str, repository: Repository, commit: str, folder: str, query: Mapping[str, str]
    ) -> Answer:
        """In pages; the next one is named by a Link header."""
        above = f"{folder}/" if folder else ""
        recursive = query.get("recursive", "").lower() in ("true", "1")
        entries: dict[str, dict[str, Any]] = {}
        for file in repository.files(commit):
            if file.name.startswith(above):
                parts = file.name.removeprefix(above).split("/")
                for depth in range(1, len(parts)):
                    path = above + "/".join(parts[:depth])
                    entries.setdefault(path, _folder(path))
                if len(parts) == 1 or recursive:
                    entries[file.name] = _entry(file, repository.xet)
        if folder and not entries:
            return error(404, "EntryNotFound", f"{folder} does not exist on {commit}")
        wanted = [e for path, e in entries.items() if recursive or "/" not in path.removeprefix(above)]
        first, most = int(query.get("cursor", 0)), min(int(query.get("limit", self.page)), self.page)
        answer = structure(wanted[first : first + most])
        if first + most < len(wanted):
            path = quote(f"/api/models/{name}/tree/{commit}/{folder}".rstrip("/"))
            cursor = f"recursive={str(recursive).lower()}&limit={most}&cursor={first + most}"
            answer = answer.headed(Link=f'<{self.hub_url}{path}?{cursor}>; rel="next"')
        return answer

    def _paths(self, repository: Repository, commit: str, posted: bytes) -> Answer:
        """The paths are posted as a form or as JSON; the answer leaves out those that do not exist."""
        text = posted.decode()
        paths = json.loads(text)["paths"] if text.startswith("{") else parse_qs(text).get("paths", [])
        files = (repository.file(commit, path) for path in paths)
        return structure([_entry(file, repository.xet) for file in files if file])

    def _xet_token(self) -> Answer:
        """Where Xet's own service is. There is none here: who follows this gets 403 from the storage host."""
        end = str(int(time.time()) + 3600)
        answer = structure({"casUrl": self.storage_url, "accessToken": "xet_token", "exp": int(end)})
        return answer.headed(
            X_Xet_Cas_Url=self.storage_url, X_Xet_Access_Token="xet_token", X_Xet_Token_Expiration=end
        )


def _entry(file: File, xet: bool) -> dict[str, Any]:
    entry: dict[str, Any] = {"type": "file", "path": file.name, "size": file.size, "oid": file.blob}
    if file.is_lfs:
        entry["lfs"] = {"oid": file.sha256, "size": file.size, "pointerSize": 134}
        if xet:
            entry["xetHash"] = file.xet_hash
    return entry


def _folder(path: str) -> dict[str, Any]:
    return {"type": "directory", "path": path, "size": 0, "oid": hashlib.sha1(path.encode()).hexdigest()}
