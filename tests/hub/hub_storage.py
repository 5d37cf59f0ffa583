"""The host that keeps the large files of the stand-in Hub, behind signed URLs."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from urllib.parse import parse_qs, quote, unquote, urlencode, urlsplit

from tests.hub.hub_answer import Answer, content, data, denied
from tests.hub.hub_repository import Repository


class Signer:
    """Signs paths, for `lifetime` seconds each and, with `single_use`, for one request."""

    def __init__(self, lifetime: float = 3600, single_use: bool = False) -> None:
        self.lifetime, self.single_use = lifetime, single_use
        self._key = secrets.token_bytes(16)
        self._used: set[str] = set()
        self._lock = threading.Lock()

    def sign(self, path: str) -> str:
        expires, nonce = f"{time.time() + self.lifetime:.3f}", secrets.token_hex(8)
        signature = self._signature(path, expires, nonce)
        return f"{path}?" + urlencode({"expires": expires, "n": nonce, "sig": signature})

    def complaint(self, path: str, query: str) -> str | None:
        """Why this URL is not good, or no longer."""
        given = {name: values[0] for name, values in parse_qs(query).items()}
        expires, nonce = given.get("expires", "0"), given.get("n", "")
        if not hmac.compare_digest(given.get("sig", ""), self._signature(path, expires, nonce)):
            return "The signature does not match"
        if time.time() > float(expires):
            return "Request has expired"
        with self._lock:
            if self.single_use and nonce in self._used:
                return "This URL has been used"
            self._used.add(nonce)
        return None

    def expire(self) -> None:
        """Nothing that was signed up to now is good any more."""
        self._key = secrets.token_bytes(16)

    def _signature(self, path: str, expires: str, nonce: str) -> str:
        return hmac.new(self._key, f"{path}\n{expires}\n{nonce}".encode(), hashlib.sha256).hexdigest()


class Storage:
    """Knows nothing of branches, tokens or access: who has a good URL gets the file."""

    def __init__(self, repositories: Mapping[str, Repository]) -> None:
        self.repositories = repositories
        self.signer = Signer()

    def url(self, origin: str, key: str) -> str:
        return origin + self.signer.sign(quote(f"/{key}"))

    def answer(self, target: str, asked: Mapping[str, str]) -> Answer:
        parts = urlsplit(target)
        if complaint := self.signer.complaint(parts.path, parts.query):
            return denied(complaint)
        key = unquote(parts.path).lstrip("/")
        organisation, name, commit, path = key.split("/", 3)
        file = self.repositories[f"{organisation}/{name}"].file(commit, path)
        return (
            replace(content(file, file.storage_etag, asked), key=key) if file else data(b"", "application/xml", 404)
        )
