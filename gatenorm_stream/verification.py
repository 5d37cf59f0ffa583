"""Reads an output independently and compares it with its own record, and with the source if that is at hand."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gatenorm_stream.checkpoint.json_text import MAX_JSON_BYTES, parse_json
from gatenorm_stream.checkpoint.local import LocalSource
from gatenorm_stream.checkpoint.open import CONFIG, INDEX, Tensor, open_checkpoint
from gatenorm_stream.checkpoint.ranges import ByteRange
from gatenorm_stream.checkpoint.source import Source
from gatenorm_stream.checkpoint_layout import lay_out_checkpoint
from gatenorm_stream.errors import VerificationError
from gatenorm_stream.families.model import layers_prefix, read_model
from gatenorm_stream.families.table import FAMILIES
from gatenorm_stream.formats.choice import FORMATS
from gatenorm_stream.plans import Plan, check_plan_fits
from gatenorm_stream.record import RECORD, FileDigest, parse_record
from gatenorm_stream.scoring import Progress, available_threads
from gatenorm_stream.spelling import did_you_mean

CHUNK = 8 << 20


@dataclass(frozen=True)
class Verified:
    """What was found in order. `against` names the source that every kept tensor was compared with."""

    plan: Plan
    files: int
    tensors: int
    bytes: int
    against: str | None = None


def verify_output(out: Path, against: Source | None = None, *, progress: Progress | None = None) -> Verified:
    """Checks every byte of `out` against the digests in its gatenorm.json, its tensors against its config and
    plan, and with `against` every kept tensor against the source's bytes.

    Raises VerificationError with all that is wrong.
    """
    plan, files = parse_record(_record(out), str(out))
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
            problems += dict.fromkeys(_source_problems(out, plan, against, progress))
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
        digest = hashlib.sha256()
        with open(path, "rb", buffering=0) as file:
            while chunk := file.read(CHUNK):
                digest.update(chunk)
                advance(len(chunk), name)
        if digest.hexdigest() == expected.sha256:
            return None
        place = _damaged_part(path, expected.marks)
        return f"{name} was changed: its sha256 differs" + (f", first in {place}" if place else "")

    with ThreadPoolExecutor(available_threads()) as pool:
        yield from (problem for problem in pool.map(check, files) if problem)
    for path in sorted(out.rglob("*.safetensors")):
        name = path.relative_to(out).as_posix()
        if name not in files:
            yield f"{name} does not belong here: engines would load it"


def _record(out: Path) -> str:
    path = out / RECORD
    if not path.is_file():
        raise VerificationError(
            str(out), [f"there is no {RECORD}; it is not an output of gatenorm-stream{did_you_mean(out)}"]
        )
    try:
        with open(path, "rb") as file:
            return file.read(MAX_JSON_BYTES + 1).decode("utf-8")
    except UnicodeDecodeError:
        raise VerificationError(str(out), [f"{RECORD} was changed after it was written"]) from None


def _damaged_part(path: Path, marks: tuple[str, ...]) -> str | None:
    """The header or the tensor in which a shard first differs from what was recorded; None if that can't be told.

    What the header says is used only once its own mark fits.
    """
    if not marks:
        return None
    digest = hashlib.sha256()
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
    from safetensors import SafetensorError

    try:
        yield from _contradictions(out, plan)
    except (SafetensorError, OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        yield f"its files are not what the plan makes: {type(error).__name__}: {error}"


def _contradictions(out: Path, plan: Plan) -> Iterator[str]:
    """Compares tensors, index and config with the plan, by way of the safetensors package."""
    from safetensors import safe_open

    held: dict[str, str] = {}
    for path in sorted(out.glob("*.safetensors")):
        with safe_open(path, framework="numpy") as shard:
            held |= dict.fromkeys(shard.keys(), path.name)
    if (out / INDEX).is_file():
        index = _json(out / INDEX)
        if index["weight_map"] != held:
            yield f"{INDEX} does not list the tensors that the shards hold"
    config = _json(out / CONFIG)
    removes = FORMATS[plan.format].removes
    if removes:
        named = [config["gatenorm"]["pruned_layers"]]
        if blocks := config.get("block_configs"):
            named.append([n for n, b in enumerate(blocks) if b["attention"]["no_op"]])
        for pruned in named:
            if pruned != list(plan.dropped):
                yield f"{CONFIG} says layers {pruned} have no attention, the plan {list(plan.dropped)}"
    family = next(f for f in FAMILIES if f.model_type == plan.family)
    prefix = layers_prefix(held, family)
    for layer in (s.layer for s in plan.scores):
        has = any(name.startswith(f"{prefix}{layer}.{family.attention}.") for name in held)
        gone = removes and layer in plan.dropped
        if has == gone:
            yield f"layer {layer} has {'' if has else 'no '}attention tensors, against the plan"


def _json(path: Path) -> Any:
    with open(path, "rb") as file:
        return parse_json(file.read(MAX_JSON_BYTES + 1))


def _source_problems(out: Path, plan: Plan, against: Source, progress: Progress | None) -> Iterator[str]:
    with open_checkpoint(against) as source, open_checkpoint(LocalSource(out)) as output:
        model = read_model(source)
        check_plan_fits(plan, model)
        layout = lay_out_checkpoint(plan, model)
        expected = {t.name: t for shard in layout.shards for t in shard.tensors}
        for name in sorted(expected.keys() ^ output.tensors.keys()):
            yield f"{name} is {'missing' if name in expected else 'not in the source'}"
        zeroed = {name for layer in plan.dropped for name in model.output_projection(layer)}
        compared = []
        for name in sorted(expected.keys() & output.tensors.keys()):
            kept, original = output.tensors[name], source.tensors.get(name)
            if original is None or (plan.format == "zeroed" and name in zeroed):
                if not _all_zero(kept):
                    yield f"{name} is not zero"
            elif (kept.dtype, kept.shape) != (original.dtype, original.shape):
                yield f"{name} has another dtype or shape than the source's"
            else:
                compared.append((kept, original))
        for name in _differing(compared, max(against.connections, available_threads()), progress):
            yield f"{name} differs from the source's"
        for name, text in layout.texts.items():
            if not _holds(out / name, [text.encode("utf-8")]):
                yield f"{name} is not what the plan makes of the source"
        for name, copied in layout.copied.items():
            if not _holds(out / name, (copied.file.read(part) for part in copied.range.chunks(CHUNK))):
                yield f"{name} differs from the source's"


def _differing(pairs: list[tuple[Tensor, Tensor]], workers: int, progress: Progress | None) -> Iterator[str]:
    """Names of tensors whose bytes differ, compared in chunks side by side."""
    chunks = [
        (mine, theirs, a, b)
        for mine, theirs in pairs
        for a, b in zip(mine.range.chunks(CHUNK), theirs.range.chunks(CHUNK), strict=True)
    ]
    total, done = sum(len(a) for _, _, a, _ in chunks), 0

    def same(chunk: tuple[Tensor, Tensor, ByteRange, ByteRange]) -> bool:
        mine, theirs, a, b = chunk
        return np.array_equal(_bytes(mine, a), _bytes(theirs, b))

    with ThreadPoolExecutor(workers) as pool:
        for (mine, _, a, _), equal in zip(chunks, pool.map(same, chunks), strict=True):
            done += len(a)
            if progress:
                progress("comparing", done, total, mine.shard.name)
            if not equal:
                yield mine.name


def _holds(path: Path, content: Iterable[bytes | memoryview]) -> bool:
    if not path.is_file():
        return False
    with open(path, "rb") as file:
        return all(file.read(len(part)) == part for part in content) and not file.read(1)


def _all_zero(tensor: Tensor) -> bool:
    return not any(_bytes(tensor, chunk).any() for chunk in tensor.range.chunks(CHUNK))


def _bytes(tensor: Tensor, where: ByteRange) -> npt.NDArray[np.uint8]:
    return np.frombuffer(tensor.shard.file.read(where), dtype=np.uint8)
