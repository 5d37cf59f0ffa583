"""What the Hub says of a repository: its commit and its files. Each value is checked, as any server may answer."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from gatenorm_stream.errors import HubError
from gatenorm_stream.sources.hub.address import HubAddress
from gatenorm_stream.sources.hub.errors import hub_errors, raise_for_status
from gatenorm_stream.sources.hub.guard import ask, endpoint_shown, hub_headers, read_answer

_COMMIT = re.compile(r"[0-9A-Za-z]{1,64}", re.ASCII)
_SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)
_OBJECT = re.compile(r"[0-9a-zA-Z+/=_.:-]{1,200}", re.ASCII)
MOST_BYTES = 1 << 60


@dataclass(frozen=True)
class Entry:
    """A file as the Hub lists it. `etag` is its sha256 for a large file, else its git object id; mirrors may leave
    out both that and the size.
    """

    name: str
    size: int | None
    etag: str
    sha256: str | None


@dataclass(frozen=True)
class Listing:
    commit: str
    entries: tuple[Entry, ...]


def list_repository(address: HubAddress) -> Listing:
    """Raises HubError, or TransientError for what may pass."""
    from huggingface_hub import constants, get_token

    url = f"{constants.ENDPOINT}/api/models/{address.repository}"
    if address.revision:
        url += f"/revision/{quote(address.revision, safe='')}"
    with hub_errors(address, logged_in=get_token() is not None):
        response = ask(url, hub_headers(), {"blobs": "true"})
        raise_for_status(response)
    if response.status_code != 200:
        raise _no_listing(address, f"status {response.status_code}")
    return read_listing(response.content, address)


def read_listing(text: bytes, address: HubAddress) -> Listing:
    """Raises HubError if `text` is not what a Hub answers."""
    try:
        found = read_answer(text)
    except ValueError:
        kind = "a web page" if text.lstrip()[:1] == b"<" else "no JSON"
        raise _no_listing(address, kind) from None
    commit = found.get("sha") if isinstance(found, dict) else None
    if commit is None and isinstance(found, dict) and "siblings" in found:
        raise HubError(f"the Hub names no commit for {address}; give a revision")
    if not isinstance(commit, str) or not _COMMIT.fullmatch(commit):
        raise _no_listing(address, "no commit")
    listed = found.get("siblings")
    if not isinstance(listed, list):
        raise _no_listing(address, "no list of files")
    return Listing(commit, tuple(_entries(listed, address)))


def _entries(listed: list[Any], address: HubAddress) -> Iterator[Entry]:
    for given in listed:
        match given:
            case {"rfilename": str(name), **rest}:
                size, blob, lfs = rest.get("size"), rest.get("blobId"), rest.get("lfs")
                sha256 = lfs.get("sha256") if isinstance(lfs, dict) else None
                if (
                    (size is None or (type(size) is int and 0 <= size <= MOST_BYTES))
                    and (blob is None or (isinstance(blob, str) and _OBJECT.fullmatch(blob)))
                    and (lfs is None or isinstance(lfs, dict))
                    and (sha256 is None or (isinstance(sha256, str) and _SHA256.fullmatch(sha256)))
                ):
                    yield Entry(name, size, sha256 or blob or "", sha256)
                    continue
        raise _no_listing(address, "a file without a name, size or digest that could be one")


def _no_listing(address: HubAddress, found: str) -> HubError:
    return HubError(
        f"{endpoint_shown()} answers for {address} with {found}: no Hub does; check HF_ENDPOINT, and whether the "
        "network wants a login first"
    )
