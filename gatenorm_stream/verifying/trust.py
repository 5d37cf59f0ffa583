"""What in an output would have an engine run or read what is not the plan's: files off the record, and code."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gatenorm_stream.checkpoint.foreign_code import without_foreign_code
from gatenorm_stream.formats.travelling_file import RUNTIME_FILE, runtime_text
from gatenorm_stream.names import CONFIG, RECORD
from gatenorm_stream.planning.needs import MODULES
from gatenorm_stream.planning.travelling import never
from gatenorm_stream.planning.trust import LARGEST, foreign_modules, is_judged, judged_json
from gatenorm_stream.sources.walk import can_be_listed, walk
from gatenorm_stream.verifying.output import Output
from gatenorm_stream.version import VERSION

TOOLS = ((".gitattributes",), (".git",), (".gitignore",), (".cache", "huggingface"), (".DS_Store",))
"""What git and `hf download` leave in a folder; no engine reads it."""


def files_off_the_record(output: Output) -> Iterator[str]:
    """A line each for what stands in the directory and is neither on record nor git's or the Hub's own."""
    for name in sorted(_names(output.path)):
        if name not in output.files and name != RECORD:
            yield f"{name} does not belong here: it is not on record, and engines may read it"


def foreign_code(output: Output) -> Iterator[str]:
    """Of files whose digests are right: anyone can write those anew."""
    if RUNTIME_FILE in output.files and not _is_runtime(output.file(RUNTIME_FILE)):
        made, hint = output.plan.tool_version, ""
        if made != VERSION:
            hint = f"; the output names release {made} of gatenorm-stream: verify it with that one, or prune anew"
        yield f"{RUNTIME_FILE} is not the file of this release ({VERSION}){hint}"
    for name in sorted(output.files):
        if why := never(name):
            yield f"{name} is on record, and no output holds such a file: {why}"
        elif is_judged(name):
            yield from _named_in(output, name)


def _is_runtime(path: Path) -> bool:
    text = runtime_text().encode("utf-8")
    with open(path, "rb") as file:
        return file.read(len(text) + 1) == text


def _named_in(output: Output, name: str) -> Iterator[str]:
    with open(output.file(name), "rb") as file:
        text = file.read(LARGEST + 1)
    if len(text) > LARGEST and not name.endswith(".index.json"):
        yield f"{name} is too large to be searched for a stranger's code"
        return
    try:
        value = judged_json(text) if len(text) <= LARGEST else None
    except ValueError as error:
        yield f"{name} can't be searched for a stranger's code: {error}"
        return
    for what in without_foreign_code(value).taken_out:
        yield f"{name} names code of elsewhere: {what}"
    if name == MODULES:
        yield from (f"{name} names code of elsewhere: {what}" for what in foreign_modules(value))
    if name == CONFIG and output.format.removes:
        yield from (f"{CONFIG} names {what} in the place of {RUNTIME_FILE}" for what in _other_classes(value))


def _other_classes(config: Any) -> Iterator[str]:
    mapped = config.get("auto_map") if isinstance(config, dict) else None
    for auto, reference in mapped.items() if isinstance(mapped, dict) else ():
        ours = isinstance(reference, str) and reference.startswith(f"{RUNTIME_FILE.removesuffix('.py')}.")
        if auto.startswith(("AutoModel", "AutoConfig")) and not ours:
            yield str(reference)[:80]


def _names(root: Path) -> Iterator[str]:
    """Of files, of links, which are not followed, and of folders that can't be looked into; other folders alone are
    nothing that is read.
    """

    def not_left_by_tools(entry: os.DirEntry[str]) -> bool:
        parts = Path(entry.path).relative_to(root).parts
        return not any(parts[: len(own)] == own for own in TOOLS)

    for entry in walk(root, not_left_by_tools):
        if (entry.is_symlink() or not entry.is_dir() or not can_be_listed(entry)) and not_left_by_tools(entry):
            yield Path(entry.path).relative_to(root).as_posix()
