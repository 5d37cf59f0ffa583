"""An output compared with what its plan makes of the source: every tensor, header and file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path

from gatenorm_stream.checkpoint.tensors import Checkpoint, Shard, Tensor
from gatenorm_stream.families.open import open_model
from gatenorm_stream.names import CARD, PICTURE
from gatenorm_stream.planning.lay_out import lay_out
from gatenorm_stream.planning.layout import Layout, ShardLayout
from gatenorm_stream.planning.plan import check_plan_fits
from gatenorm_stream.sources.ranges import ByteRange
from gatenorm_stream.sources.source import Kind, Source
from gatenorm_stream.verifying.content import CHUNK, Content, contents, holds
from gatenorm_stream.verifying.output import Output
from gatenorm_stream.work import Progress, available_threads, workers


def compare(output: Output, held: Checkpoint, against: Source, progress: Progress | None) -> tuple[list[str], int]:
    """What of `output`, opened as `held`, is not what its plan makes of `against`; a line may come twice. And how
    many tensors hold what the plan says, not what the source has.

    Tensors are compared by name with what the edit makes of them: of the layout, which the writer went by, only
    headers and texts are taken. The model card and gatenorm.json are not compared: they tell of the run. Raises
    CheckpointError, or PlanError if the plan was made for another model.
    """
    with open_model(against) as model:
        check_plan_fits(output.plan, model)
        layout = lay_out(output.plan, model)
        expected = contents(output.format.edit(model, output.plan.dropped, output.plan.constants), model.checkpoint)
        found = chain(
            _names(output, held, expected, layout),
            _tensors(output, held, expected, model.checkpoint, progress),
            _padding(output, held),
            _headers(output, layout, model.checkpoint),
            _other_files(output, layout, against),
        )
        return list(found), sum(content.original is None for content in expected.values())


def _names(output: Output, held: Checkpoint, expected: Mapping[str, Content], layout: Layout) -> Iterator[str]:
    shards = {t.name: shard.name for shard in layout.shards for t in shard.tensors}
    for name in sorted(expected.keys() - held.tensors.keys()):
        known = output.kind is Kind.SAFETENSORS and name in shards
        yield f"{name} is missing" + (f" from {shards[name]}" if known else "")
    for name in sorted(held.tensors.keys() - expected.keys()):
        yield f"{_located(output, held.tensors[name])} is not in the source"


def _tensors(
    output: Output,
    held: Checkpoint,
    expected: Mapping[str, Content],
    source: Checkpoint,
    progress: Progress | None,
) -> Iterator[str]:
    """In the order of their bytes."""
    pairs = []
    for name, tensor in held.tensors.items():
        content = expected.get(name)
        if content is None:
            continue
        if (tensor.dtype, tensor.shape) == (content.dtype, content.shape):
            pairs.append((tensor, content))
        elif name in source.tensors:
            yield f"{_located(output, tensor)} has another dtype or shape than the source's"
        else:
            yield f"{_located(output, tensor)} is not what the plan makes of the source"
    threads = max(source.source.connections, available_threads())
    for tensor, content in _differing(pairs, threads, progress):
        yield f"{_located(output, tensor)} {content.fault}"


def _differing(
    pairs: list[tuple[Tensor, Content]], threads: int, progress: Progress | None
) -> Iterator[tuple[Tensor, Content]]:
    """Those whose bytes differ, compared in chunks side by side."""
    chunks = [(*pair, where) for pair in pairs for where in pair[1].chunks(len(pair[0].range))]
    total, done = sum(len(where) for *_, where in chunks), 0
    with workers(threads) as pool:
        same = pool.map(lambda chunk: holds(*chunk), chunks)
        for (tensor, content, where), equal in zip(chunks, same, strict=True):
            done += len(where)
            if progress:
                progress("comparing", done, total, tensor.shard.name)
            if not equal:
                yield tensor, content


def _padding(output: Output, held: Checkpoint) -> Iterator[str]:
    """What stands between tensors (of GGUF files, which align them) belongs to none of them."""
    for shard in held.shards:
        tensors = [Tensor(info, shard) for info in shard.header.tensors]
        ends = [*(t.range.start for t in tensors[1:]), shard.file.size]
        for tensor, end in zip(tensors, ends, strict=True):
            if not all(_is_zero(shard.file.read(c)) for c in ByteRange(tensor.range.stop, end).chunks(CHUNK)):
                yield f"the bytes behind {_located(output, tensor)} are not zero"


def _is_zero(part: memoryview) -> bool:
    return bytes(part) == bytes(len(part))


def _headers(output: Output, layout: Layout, source: Checkpoint) -> Iterator[str]:
    for shard in layout.shards:
        if not _begins(output.file(shard.name), _header(shard, source)):
            called = output.called(shard.name)
            yield f"{called} does not begin with the header that the plan makes of the source"


def _header(planned: ShardLayout, source: Checkpoint) -> bytes | memoryview:
    """The bytes before the first tensor's; of a shard that stays as it is, the source's own."""
    if planned.header:
        return planned.header
    original: Shard = source.tensors[planned.tensors[0].name].shard
    return original.file.read(ByteRange(0, original.header.data_start))


def _other_files(output: Output, layout: Layout, source: Source) -> Iterator[str]:
    for name, text in layout.texts.items():
        if not _is(output.file(name), [text.encode("utf-8")]):
            yield f"{name} is not what the plan makes of the source"
    for name in layout.copied:
        original = source.open(name)
        if not _is(output.file(name), map(original.fetch, ByteRange(0, original.size).chunks(CHUNK))):
            yield f"{name} differs from the source's"
    made = {shard.name for shard in layout.shards} | layout.texts.keys() | layout.copied.keys() | {CARD, PICTURE}
    for name in sorted(output.files.keys() - made):
        yield f"{name} is not in the source"


def _begins(path: Path, content: bytes | memoryview) -> bool:
    if not path.is_file():
        return False
    with open(path, "rb") as file:
        return file.read(len(content)) == bytes(content)


def _is(path: Path, content: Iterable[bytes | memoryview]) -> bool:
    if not path.is_file():
        return False
    with open(path, "rb") as file:
        return all(file.read(len(part)) == bytes(part) for part in content) and not file.read(1)


def _located(output: Output, tensor: Tensor) -> str:
    return tensor.name if output.kind is Kind.GGUF else f"{tensor.name} in {tensor.shard.name}"
