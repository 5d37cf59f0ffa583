"""What people type or paste for a model on the Hub."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

from gatenorm_stream.errors import HubError

_PART = r"[\w](?:[\w.-]*[\w])?"
_ID = re.compile(rf"({_PART}/{_PART})(?:@([^\s:]+))?(?::([^\s:]+\.gguf|[\w-]+))?", re.ASCII)


@dataclass(frozen=True)
class HubAddress:
    """A model repository; `revision` is a branch, tag or commit, None for the default branch.

    `file` is a GGUF file in it, `quantisation` stands for one, as Q4_K_M; both None if its safetensors checkpoint
    is meant.
    """

    repository: str
    revision: str | None = None
    file: str | None = None
    quantisation: str | None = None

    def __str__(self) -> str:
        return f"{self.repository}@{self.revision}" if self.revision else self.repository


def hub_address(text: str, revision: str | None = None) -> HubAddress | None:
    """The address that `text` (org/name[@revision][:file.gguf or :Q4_K_M], hf://..., a Hub URL) stands for; None if
    it is a local path.

    An existing path is local, whatever it looks like. `revision` overrides the one in `text`. Raises HubError for
    an address that is not a model's.
    """
    if Path(text).exists():
        return None
    if "://" in text:
        address = _from_uri(text)
    elif match := _ID.fullmatch(text):
        name = match[3]
        is_file = name is None or name.endswith(".gguf")
        address = HubAddress(match[1], match[2], name if is_file else None, None if is_file else name)
    else:
        return None
    return replace(address, revision=revision or address.revision)


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
