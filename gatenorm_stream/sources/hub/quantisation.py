"""org/name:Q4_K_M, as llama.cpp writes it: the GGUF file of a repository by its quantisation."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import PurePosixPath

from gatenorm_stream.errors import HubError
from gatenorm_stream.names import SUFFIX, split_names
from gatenorm_stream.sources.hub.address import HubAddress

BESIDE_MODELS = re.compile(r"(^|[-._/])(mmproj|imatrix|mtp|vocab)([-._]|$)", re.IGNORECASE)
"""In the name of a GGUF file that is no language model by itself."""
_TAG = re.compile(
    r"(?:^|[-._/])((?:UD-)?(?:I?Q\d\w*|TQ\d\w*|MXFP4\w*|NVFP4\w*|B?F16|F32))(?=[-./]|$)", re.IGNORECASE | re.ASCII
)
SHOWN = 12


def with_file(address: HubAddress, names: Iterable[str]) -> tuple[HubAddress, tuple[str, ...]]:
    """The same address with that file instead, and all parts of it. Raises HubError unless there is exactly one."""
    tag = address.quantisation or ""
    models = [name for name in sorted(names) if name.lower().endswith(SUFFIX) and not BESIDE_MODELS.search(name)]
    wanted = re.compile(rf"(^|[-._/]){re.escape(tag)}(?=[-./]|$)", re.IGNORECASE)
    found = {split_names(name) for name in models if wanted.search(str(PurePosixPath(name).with_suffix("")))}
    if len(found) == 1:
        (files,) = found
        return replace(address, file=files[0], quantisation=None), files
    if found:
        which = ", ".join(sorted(files[0] for files in found)[:SHOWN])
        raise HubError(f"{address} has several files of {tag}; give one as {address}:FILE: {which}")
    tags = dict.fromkeys(t[1] for name in models if (t := _TAG.search(str(PurePosixPath(name).with_suffix("")))))
    there = ", ".join([*tags][:SHOWN] or models[:SHOWN]) or "it has no GGUF files"
    raise HubError(f"{address} has no GGUF file of {tag}: {there}")
