"""Reads an output independently and compares it with its own record, and with the source if that is at hand."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from blake3 import blake3

from gatenorm_stream.checkpoint.json_text import MAX_JSON_BYTES, parse_json
from gatenorm_stream.checkpoint.safetensors import open_checkpoint
from gatenorm_stream.errors import VerificationError
from gatenorm_stream.families.model import layers_prefix
from gatenorm_stream.families.table import FAMILIES
from gatenorm_stream.formats.choice import FORMATS
from gatenorm_stream.formats.travelling_file import CONSTANT
from gatenorm_stream.names import CONFIG, INDEX
from gatenorm_stream.planning.plan import Plan
from gatenorm_stream.sources.local import LocalSource
from gatenorm_stream.sources.source import Source
from gatenorm_stream.verifying.against_source import CHUNK, differences
from gatenorm_stream.verifying.verified import Verified
from gatenorm_stream.work import Progress, available_threads
from gatenorm_stream.writing.record import FileDigest, read_record


def verify_output(out: Path, against: Source | None = None, *, progress: Progress | None = None) -> Verified:
    """Checks every byte of `out` against the digests in its gatenorm.json, its tensors against its config and
    plan, and with `against` every kept tensor against the source's bytes.

    Raises VerificationError with all that is wrong.
    """
    plan, files = read_record(out)
    total = sum(f.size for f in files.values())
    done = 0

    def advance(count: int, name: str) -> None:
        nonlocal done
        done += count
        if progress:
            progress("verifying", done, total, name)

    problems = list(_file_problems(out, files, advance))
    tensors = 0
    if not problems:
        problems += _content_problems(out, plan)
    if not problems:
        with open_checkpoint(LocalSource(out)) as checkpoint:
            tensors = len(checkpoint.tensors)
        if against:
            problems += dict.fromkeys(differences(out, plan, against, progress))
    if problems:
        raise VerificationError(str(out), problems)
    return Verified(plan, len(files), tensors, total, against.title if against else None)


def _file_problems(
    out: Path, files: Mapping[str, FileDigest], advance: Callable[[int, str], None]
) -> Iterator[str]:
    def check(name: str) -> str | None:
        path, expected = out / name, files[name]
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != expected.size:
            return f"{name} is {path.stat().st_size} bytes long instead of {expected.size}"
        digest = blake3()
        with open(path, "rb", buffering=0) as file:
            while chunk := file.read(CHUNK):
                digest.update(chunk)
                advance(len(chunk), name)
        if digest.hexdigest() == expected.blake3:
            return None
        place = _damaged_part(path, expected.marks)
        return f"{name} was changed: its BLAKE3 digest differs" + (f", first in {place}" if place else "")

    with ThreadPoolExecutor(available_threads()) as pool:
        yield from (problem for problem in pool.map(check, files) if problem)
    for path in sorted(out.rglob("*.safetensors")):
        name = path.relative_to(out).as_posix()
        if name not in files:
            yield f"{name} does not belong here: engines would load it"


def _damaged_part(path: Path, marks: tuple[str, ...]) -> str | None:
    """The header or the tensor in which a shard first differs from what was recorded; None if that can't be told.

    What the header says is used only once its own mark fits.
    """
    if not marks:
        return None
    digest = blake3()
    with open(path, "rb", buffering=0) as file:

        def fits(mark: str, count: int) -> bool:
            while count > 0 and (chunk := file.read(min(CHUNK, count))):
                digest.update(chunk)
                count -= len(chunk)
            return digest.hexdigest().startswith(mark)

        length = int.from_bytes(file.read(8), "little")
        header = file.read(min(length, MAX_JSON_BYTES))
        file.seek(0)
        if not fits(marks[0], 8 + length):
            return "its header"
        try:
            tensors = _tensor_ends(header)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return None
        position = 0
        for mark, (name, end) in zip(marks[1:], tensors, strict=False):
            if not fits(mark, end - position):
                return name
            position = end
    return None


def _tensor_ends(header: bytes) -> list[tuple[str, int]]:
    """Names in the order of their bytes, each with where its bytes end."""
    entries = json.loads(header)
    entries.pop("__metadata__", None)
    placed = sorted((*entry["data_offsets"], name) for name, entry in entries.items())
    return [(name, int(end)) for _, end, name in placed]


def _content_problems(out: Path, plan: Plan) -> Iterator[str]:
    """What contradicts the plan; anyone can write files of any form and record their digests."""
    try:
        yield from _contradictions(out, plan)
    except _UnreadableError as error:
        yield str(error)


class _UnreadableError(Exception):
    pass


@contextmanager
def _reading(name: str) -> Iterator[None]:
    from safetensors import SafetensorError

    try:
        yield
    except (SafetensorError, OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise _UnreadableError(f"{name} is not what the plan makes: {type(error).__name__}: {error}") from error


def _contradictions(out: Path, plan: Plan) -> Iterator[str]:
    """Compares tensors, index and config with the plan, by way of the safetensors package."""
    from safetensors import safe_open

    held: dict[str, str] = {}
    for path in sorted(out.glob("*.safetensors")):
        with _reading(path.name), safe_open(path, framework="numpy") as shard:
            held |= dict.fromkeys(shard.keys(), path.name)
    if (out / INDEX).is_file():
        with _reading(INDEX):
            yield from _misplaced(held, _json(out / INDEX)["weight_map"])
    removes = FORMATS[plan.format].removes
    with _reading(CONFIG):
        for pruned in _named_as_pruned(_json(out / CONFIG)) if removes else ():
            if pruned != list(plan.dropped):
                yield f"{CONFIG} says layers {pruned} have no attention, the plan {list(plan.dropped)}"
    family = next(f for f in FAMILIES if f.model_type == plan.family)
    prefix = layers_prefix(held, family)
    for layer in (s.layer for s in plan.scores):
        attention = f"{prefix}{layer}.{family.attention}."
        has = any(name.startswith(attention) and name != f"{attention}{CONSTANT}" for name in held)
        gone = removes and layer in plan.dropped
        if has == gone:
            yield f"layer {layer} has {'' if has else 'no '}attention tensors, against the plan"


def _misplaced(held: Mapping[str, str], listed: Mapping[str, Any]) -> Iterator[str]:
    for name in sorted(held.keys() | listed.keys()):
        if held.get(name) != listed.get(name):
            yield f"{INDEX} puts {name} in {listed.get(name, 'no file')}, it stands in {held.get(name, 'no file')}"


def _named_as_pruned(config: Any) -> Iterator[list[int]]:
    yield config["gatenorm"]["pruned_layers"]
    if blocks := config.get("block_configs"):
        yield [n for n, b in enumerate(blocks) if b["attention"]["no_op"]]


def _json(path: Path) -> Any:
    with open(path, "rb") as file:
        return parse_json(file.read(MAX_JSON_BYTES + 1))
