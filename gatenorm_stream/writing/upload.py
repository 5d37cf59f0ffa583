"""Uploads a finished output to a private repository of the Hub, in one commit.

One commit, so that the repository never holds half a model. Data that arrived before a failure is known to the Hub
by its digest and not sent again, so the same upload resumes where it was interrupted.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from blake3 import blake3

from gatenorm_stream.errors import HubError
from gatenorm_stream.names import CARD, RECORD, SUFFIX
from gatenorm_stream.planning.plan import Plan
from gatenorm_stream.sources.hub.address import hub_address
from gatenorm_stream.sources.hub.guard import LISTING_BYTES, endpoint_shown, guarded_client
from gatenorm_stream.sources.hub.retry import LIMITED_STATUS, LONGEST_TOLD, TransientError, wait_told
from gatenorm_stream.sources.source import Kind
from gatenorm_stream.writing.record import FileDigest, card_path, kind_at, record_path, render_record
from gatenorm_stream.writing.shared_record import without_paths

if TYPE_CHECKING:
    import httpx2

CHUNK = 4 << 20
SMALL = 1 << 20
UPLOAD_SECONDS = 300.0
"""Of silence: the Hub may take long to answer a commit."""

LONGEST_SAID = 300
"""Characters of a message of the library, which may quote an answer."""

EMPTY = frozenset({".gitattributes", CARD})
"""What a repository may hold that is not an output of ours."""
OF_GGUF = (SUFFIX, f".{RECORD}")
"""Endings of what a repository of GGUF outputs holds: several of them may stand beside each other."""


@dataclass(frozen=True)
class Repository:
    """One on the Hub that an output may be uploaded to, as it was at `commit`, with the files `held`."""

    name: str
    commit: str
    held: frozenset[str]


def prepare(name: str, kind: Kind) -> Repository:
    """Makes the private repository `name` for outputs of that kind, if it is not there.

    Raises HubError if `name` is no org/name, may not be written, is public, or holds what is not an output of ours.
    """
    from huggingface_hub import HfApi

    address = hub_address(name)
    if address is None or address.revision:
        raise HubError(f"{name} is not a repository on the Hub; give org/name")
    repository, api = address.repository, HfApi()
    with push_errors(repository), guarded_library():
        api.create_repo(repository, private=True, exist_ok=True)
        info = api.model_info(repository)
        held = frozenset(file.rfilename for file in info.siblings or ())
        if not all(isinstance(said, str) for said in (info.sha, *held)):
            raise TypeError("a name that is no text")
    if info.private is not True:
        raise HubError(
            f"{repository} is public, and nothing is published from here; make it private in its settings on the "
            "Hub, or choose another name"
        )
    if foreign := _foreign(held, kind):
        raise HubError(f"{repository} holds {foreign}; choose another name")
    return Repository(repository, str(info.sha), held)


def _foreign(held: frozenset[str], kind: Kind) -> str | None:
    """What an output of that kind can't stand beside or replace."""
    others = sorted(held - EMPTY)
    if kind is Kind.GGUF:
        strange = [name for name in others if not name.endswith(OF_GGUF)]
        if others and not any(name.endswith(f".{RECORD}") for name in others):
            strange = others
        return f"{strange[0]}, which is no GGUF output of gatenorm-stream" if strange else None
    missing = others and RECORD not in held
    return f"{others[0]} and no {RECORD}, so it is not an output of gatenorm-stream" if missing else None


def output_files(out: Path, files: Mapping[str, FileDigest]) -> dict[str, tuple[Path, FileDigest]]:
    """What goes up beside the record, by its name there: of a GGUF output, the file, and its card as README.md."""
    if kind_at(out) is not Kind.GGUF:
        return {name: (out / name, digest) for name, digest in files.items()}
    return {
        name if name == CARD else out.name: (card_path(out) if name == CARD else out, digest)
        for name, digest in files.items()
    }


def _taken(names: Iterable[str], repository: Repository) -> str | None:
    """A GGUF file there that has the name of ours, and no record."""
    taken = (name for name in names if name.endswith(SUFFIX) and name in repository.held)
    return next((name for name in taken if f"{name.removesuffix(SUFFIX)}.{RECORD}" not in repository.held), None)


def push(out: Path, plan: Plan, files: Mapping[str, FileDigest], repository: Repository) -> str:
    """Uploads the output's files and their record, without local paths. Those of a directory take the place of all
    that `repository` held, a GGUF file stands beside the others.

    Each is opened once and compared with its digest on record; the storage host compares what comes with the
    SHA-256 of the same reading. Returns the address of the page. Raises HubError.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

    going, name_of_record = output_files(out, files), record_path(out, kind_at(out)).name
    if taken := _taken(going, repository):
        raise HubError(f"{repository.name} holds a {taken} that is not ours; rename the output")
    record = render_record(without_paths(plan), files).encode("utf-8")
    gguf = kind_at(out) is Kind.GGUF
    stale = [] if gguf else sorted(repository.held - {".gitattributes", name_of_record, *going})
    with ExitStack() as held, push_errors(repository.name), guarded_library():
        opened = [
            (name, path, *_open_as_recorded(path, digest, held)) for name, (path, digest) in sorted(going.items())
        ]
        additions = [CommitOperationAdd(name_of_record, record)]
        for name, path, content, sha256 in opened:
            addition = CommitOperationAdd(name, content)
            if addition.upload_info.sha256 != sha256:
                raise _changed(path)
            additions.append(addition)
        HfApi().create_commit(
            repository.name,
            [*(CommitOperationDelete(name) for name in stale), *additions],
            commit_message="Output of gatenorm-stream",
            parent_commit=repository.commit,
        )
    return f"{endpoint_shown()}/{repository.name}"


def _open_as_recorded(path: Path, recorded: FileDigest, held: ExitStack) -> tuple[bytes | str | BinaryIO, bytes]:
    """The bytes of a small file; of a large one the open file, by a name that means it and no other where there is
    such a name, since huggingface_hub's faster ways take names only. And its SHA-256.
    """
    file = held.enter_context(path.open("rb"))
    digest, sha256, parts = blake3(), hashlib.sha256(), []
    while part := file.read(CHUNK):
        digest.update(part)
        sha256.update(part)
        if recorded.size <= SMALL:
            parts.append(part)
    if digest.hexdigest() != recorded.blake3:
        raise _changed(path)
    if recorded.size <= SMALL:
        file.close()
        return b"".join(parts), sha256.digest()
    file.seek(0)
    name = f"/proc/self/fd/{file.fileno()}"
    return name if os.path.exists(name) else file, sha256.digest()


def _changed(path: Path) -> HubError:
    return HubError(f"{path} was changed after it was verified; nothing was uploaded")


@contextmanager
def guarded_library() -> Iterator[None]:
    """Within, huggingface_hub asks by the guarded client: no token follows a link in an answer to elsewhere."""
    from huggingface_hub import set_client_factory
    from huggingface_hub.utils import _http

    before = _http._GLOBAL_CLIENT_FACTORY
    set_client_factory(partial(_client, []))
    try:
        yield
    finally:
        set_client_factory(before)


def _client(waits: list[float]) -> httpx2.Client:
    """Which does not let the library wait for as long as a server asks; `waits` are those so far."""

    def check_wait(response: httpx2.Response) -> None:
        if response.status_code in LIMITED_STATUS:
            waits.append(wait_told(response.status_code, response.headers) or 0.0)
            if sum(waits) > LONGEST_TOLD:
                raise HubError(
                    f"{endpoint_shown()} asks to wait {waits[-1]:.0f} s, {sum(waits):.0f} s in all; run again then"
                )

    client = guarded_client(LISTING_BYTES, UPLOAD_SECONDS)
    hooks = client.event_hooks
    client.event_hooks = {**hooks, "response": [*hooks["response"], check_wait]}
    return client


@contextmanager
def push_errors(repository: str) -> Iterator[None]:
    """Turns the errors of huggingface_hub and its client into HubError."""
    import httpx2
    from huggingface_hub import errors as hf

    try:
        yield
    except hf.OfflineModeIsEnabled as error:
        raise HubError("HF_HUB_OFFLINE is set; unset it to upload") from error
    except hf.HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else 0
        if status == 401:
            raise HubError(
                f"the Hub wants a token that may write to {repository}; log in with `hf auth login` or set HF_TOKEN"
            ) from error
        if status in (403, 404):
            raise HubError(f"your token may not write to {repository}; use one that may") from error
        if status == 412:
            raise HubError(f"{repository} was changed in the meantime; run again") from error
        raise HubError(f"the Hub answered {status} while {repository} was written; run again") from error
    except httpx2.TransportError as error:
        raise HubError(f"{endpoint_shown()} is not reached ({type(error).__name__}); run again") from error
    except TransientError as error:
        raise HubError(f"{endpoint_shown()}: {error}; run again") from error
    except (json.JSONDecodeError, LookupError, TypeError, AttributeError, NameError, httpx2.InvalidURL) as error:
        raise HubError(
            f"{endpoint_shown()} answers as no Hub does ({type(error).__name__}); check HF_ENDPOINT, and whether "
            "the network wants a login first"
        ) from error
    except RuntimeError as error:  # of a file, whose own error is the cause
        raise HubError(f"the upload to {repository} was cut off ({_last(error)}); run again") from error
    except ValueError as error:
        said = (str(error).splitlines() or [""])[0][:LONGEST_SAID]
        raise HubError(f"{repository} can't be written: {said}") from error


def _last(error: BaseException) -> str:
    cause = error.__cause__ or error
    response = getattr(cause, "response", None)
    return f"the storage host answered {response.status_code}" if response is not None else type(cause).__name__
