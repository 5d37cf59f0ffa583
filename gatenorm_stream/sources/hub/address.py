"""What people type or paste for a model on the Hub."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from gatenorm_stream.errors import HubError

_PART = r"[\w](?:[\w.-]*[\w])?"
_ID = re.compile(rf"({_PART}/{_PART})(?:@([^\s:]+))?(?::([^\s:]+\.gguf))?", re.ASCII)


@dataclass(frozen=True)
class HubAddress:
    """A model repository; `revision` is a branch, tag or commit, None for the default branch.

    `file` is a GGUF file in it, None if its safetensors checkpoint is meant.
    """

    repository: str
    revision: str | None = None
    file: str | None = None

    def __str__(self) -> str:
        return f"{self.repository}@{self.revision}" if self.revision else self.repository


def hub_address(text: str, revision: str | None = None) -> HubAddress | None:
    """The address that `text` (org/name[@revision][:file.gguf], hf://..., a Hub URL) stands for; None if it is a
    local path.

    An existing path is local, whatever it looks like. `revision` overrides the one in `text`. Raises HubError for
    an address that is not a model's.
    """
    if Path(text).exists():
        return None
    if "://" in text:
        address = _from_uri(text)
    elif match := _ID.fullmatch(text):
        address = HubAddress(match[1], match[2], match[3])
    else:
        return None
    return HubAddress(address.repository, revision or address.revision, address.file)


def _from_uri(text: str) -> HubAddress:
    from huggingface_hub import parse_hf_uri

    try:
        uri = parse_hf_uri(text)
    except ValueError as error:
        raise HubError(
            f"{text} is not an address on the Hub ({str(error).splitlines()[0]}); give org/name"
        ) from error
    if uri.type != "model":
        raise HubError(f"{text} is a {uri.type}, not a model; give org/name of a model")
    file = uri.path_in_repo
    return HubAddress(uri.id, uri.revision, file if file and file.endswith(".gguf") else None)
