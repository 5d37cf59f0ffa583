"""Uploads a finished output to a private repository of the Hub, in one commit.

One commit, so that the repository never holds half a model. Data that arrived before a failure is known to the Hub
by its digest and not sent again, so the same upload resumes where it was interrupted.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from gatenorm_stream.errors import HubError
from gatenorm_stream.names import CARD, RECORD, SUFFIX
from gatenorm_stream.sources.hub.address import hub_address
from gatenorm_stream.sources.source import Kind
from gatenorm_stream.writing.record import card_path, kind_at, read_record, record_path

EMPTY = frozenset({".gitattributes", CARD})
"""What a repository may hold that is not an output of ours."""
OF_GGUF = (SUFFIX, f".{RECORD}")
"""Endings of what a repository of GGUF outputs holds: several of them may stand beside each other."""


@dataclass(frozen=True)
class Target:
    """A repository that an output may be uploaded to, as it was at `commit`, with the files `held`."""

    repository: str
    commit: str
    held: frozenset[str]


def prepare(name: str, kind: Kind) -> Target:
    """Makes the private repository `name` for outputs of that kind, if it is not there.

    Raises HubError if `name` is no org/name, may not be written, is public, or holds what is not an output of ours.
    """
    from huggingface_hub import HfApi

    address = hub_address(name)
    if address is None or address.revision:
        raise HubError(f"{name} is not a repository on the Hub; give org/name")
    repository, api = address.repository, HfApi()
    with push_errors(repository):
        api.create_repo(repository, private=True, exist_ok=True)
        info = api.model_info(repository)
    if not info.private:
        raise HubError(
            f"{repository} is public, and nothing is published from here; make it private in its settings on the "
            "Hub, or choose another name"
        )
    held = frozenset(file.rfilename for file in info.siblings or ())
    if foreign := _foreign(held, kind):
        raise HubError(f"{repository} holds {foreign}; choose another name")
    return Target(repository, info.sha or "", held)


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


def output_files(out: Path) -> dict[str, Path]:
    """What goes up, by its name there: of a GGUF file, the file, its record, and its card as README.md.

    Raises VerificationError or PlanError if the record is not there, or was changed.
    """
    names = read_record(out)[1]
    if kind_at(out) is Kind.GGUF:
        record = record_path(out, Kind.GGUF)
        return {out.name: out, record.name: record, CARD: card_path(out)}
    return {name: out / name for name in (*names, RECORD)}


def _taken(files: Mapping[str, Path], target: Target) -> str | None:
    """A GGUF file there that has the name of ours, and no record."""
    names = (name for name in files if name.endswith(SUFFIX))
    return next(
        (n for n in names if n in target.held and f"{n.removesuffix(SUFFIX)}.{RECORD}" not in target.held), None
    )


def push(files: Mapping[str, Path], target: Target, kind: Kind) -> str:
    """Uploads `files`, by their names there. Those of a directory take the place of all that `target` held, a GGUF
    file stands beside the others. Returns the address of the page.

    Raises HubError.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, constants

    if taken := _taken(files, target):
        raise HubError(f"{target.repository} holds a {taken} that is not ours; rename the output")
    stale = [] if kind is Kind.GGUF else sorted(target.held - {".gitattributes", *files})
    with push_errors(target.repository):
        HfApi().create_commit(
            target.repository,
            [
                *(CommitOperationDelete(name) for name in stale),
                *(CommitOperationAdd(name, path) for name, path in sorted(files.items())),
            ],
            commit_message="Output of gatenorm-stream",
            parent_commit=target.commit,
        )
    return f"{constants.ENDPOINT}/{target.repository}"


@contextmanager
def push_errors(repository: str) -> Iterator[None]:
    """Turns the errors of huggingface_hub and its client into HubError."""
    import httpx2
    from huggingface_hub import constants
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
        raise HubError(f"{constants.ENDPOINT} is not reached ({type(error).__name__}); run again") from error
    except RuntimeError as error:  # of a file, whose own error is the cause
        raise HubError(f"the upload to {repository} was cut off ({_last(error)}); run again") from error
    except ValueError as error:
        raise HubError(f"{repository} can't be written: {str(error).splitlines()[0]}") from error


def _last(error: BaseException) -> str:
    cause = error.__cause__ or error
    response = getattr(cause, "response", None)
    return f"the storage host answered {response.status_code}" if response is not None else type(cause).__name__
