"""An output compared with what its plan makes of the source: every tensor, header and file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt

from gatenorm_stream.checkpoint.safetensors import open_checkpoint
from gatenorm_stream.checkpoint.tensors import Tensor
from gatenorm_stream.families.model import read_model
from gatenorm_stream.formats.choice import formats_for
from gatenorm_stream.planning.layout import Copied, ShardLayout
from gatenorm_stream.planning.plan import Plan, check_plan_fits
from gatenorm_stream.planning.safetensors_layout import lay_out_checkpoint
from gatenorm_stream.sources.local import LocalSource
from gatenorm_stream.sources.ranges import ByteRange
from gatenorm_stream.sources.source import Source
from gatenorm_stream.work import Progress, available_threads

CHUNK = 8 << 20


def differences(out: Path, plan: Plan, against: Source, progress: Progress | None) -> Iterator[str]:
    """What of the output in `out` is not what `plan` makes of `against`; a line may come twice.

    Its model card and gatenorm.json are not compared: they tell of the run. Raises CheckpointError, or PlanError if
    the plan was made for another model.
    """
    with open_checkpoint(against) as source, open_checkpoint(LocalSource(out)) as output:
        model = read_model(source)
        check_plan_fits(plan, model)
        layout = lay_out_checkpoint(plan, model)
        expected = {t.name: shard.name for shard in layout.shards for t in shard.tensors}
        placed = {name: t.shard.name for name, t in output.tensors.items()}
        for name in sorted(expected.keys() - placed.keys()):
            yield f"{name} is missing from {expected[name]}"
        for name in sorted(placed.keys() - expected.keys()):
            yield f"{name} in {placed[name]} is not in the source"
        edit = formats_for(source)[plan.format].edit(model, plan.dropped, plan.constants)
        constants = {new.name: new.values for new in edit.add if new.values is not None}
        compared = []
        for name in sorted(expected.keys() & placed.keys()):
            kept, original = output.tensors[name], source.tensors.get(name)
            if name in constants:
                if bytes(kept.shard.file.read(kept.range)) != constants[name]:
                    yield f"{name} in {placed[name]} is not the constant that the plan has"
            elif original is None or name in edit.zero:
                if not _all_zero(kept):
                    yield f"{name} in {placed[name]} is not zero"
            elif (kept.dtype, kept.shape) != (original.dtype, original.shape):
                yield f"{name} in {placed[name]} has another dtype or shape than the source's"
            else:
                compared.append((kept, original))
        for name in _differing(compared, max(against.connections, available_threads()), progress):
            yield f"{name} in {placed[name]} differs from the source's"
        for shard in layout.shards:
            if not _begins(out / shard.name, _header(shard)):
                yield f"{shard.name} does not begin with the header that the plan makes of the source"
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


def _header(shard: ShardLayout) -> bytes | memoryview:
    """The bytes before the first tensor's."""
    match shard.pieces:
        case (Copied(file, _),) if not shard.header:
            return file.read(ByteRange(0, shard.places[0]))
    return shard.header


def _begins(path: Path, content: bytes | memoryview) -> bool:
    if not path.is_file():
        return False
    with open(path, "rb") as file:
        return file.read(len(content)) == content


def _holds(path: Path, content: Iterable[bytes | memoryview]) -> bool:
    if not path.is_file():
        return False
    with open(path, "rb") as file:
        return all(file.read(len(part)) == part for part in content) and not file.read(1)


def _all_zero(tensor: Tensor) -> bool:
    return not any(_bytes(tensor, chunk).any() for chunk in tensor.range.chunks(CHUNK))


def _bytes(tensor: Tensor, where: ByteRange) -> npt.NDArray[np.uint8]:
    return np.frombuffer(tensor.shard.file.read(where), dtype=np.uint8)
