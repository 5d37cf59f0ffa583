"""A thousand single bytes, anywhere in an output, are changed one at a time: each is found, and what it hit."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from blake3 import blake3

import gatenorm_stream
from gatenorm_stream.errors import GateNormError
from gatenorm_stream.planning.plan import read_plan
from gatenorm_stream.writing.record import FileDigest, render_record
from tests.checkpoints import llama_config, llama_shapes, random_tensors, write_checkpoint

DAMAGES = 1000

pytestmark = pytest.mark.slow


def hit(path: Path, position: int) -> str:
    """The part of a file at `position`: a tensor, its header, or nothing more than the file."""
    if path.suffix != ".safetensors":
        return ""
    data = path.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    for name, entry in json.loads(data[8:start]).items():
        if name != "__metadata__":
            first, last = entry["data_offsets"]
            if start + first <= position < start + last:
                return str(name)
    return "its header"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "source", random_tensors(llama_shapes()), llama_config())


@pytest.fixture
def out(source: Path, tmp_path: Path) -> Path:
    gatenorm_stream.prune(gatenorm_stream.plan(source, layers=[1, 2]), tmp_path / "out")
    return tmp_path / "out"


def files_of(out: Path) -> list[Path]:
    return sorted(p for p in out.rglob("*") if p.is_file())


def damages(files: list[Path], *, by_the_byte: bool, count: int) -> Iterator[tuple[Path, str]]:
    """A file in which one byte is another now, and what that byte is part of; then it is put right."""
    sizes = [p.stat().st_size for p in files] if by_the_byte else [1] * len(files)
    rng = random.Random(5)
    for path in rng.choices(files, sizes, k=count):
        original = path.read_bytes()
        position = rng.randrange(len(original))
        if path.suffix == ".safetensors" and rng.randrange(3) == 0:
            position = rng.randrange(8 + int.from_bytes(original[:8], "little"))
        damaged = bytearray(original)
        damaged[position] ^= rng.randrange(1, 256)
        part = hit(path, position)
        path.write_bytes(damaged)
        yield path, part
        path.write_bytes(original)


@pytest.mark.parametrize("by_the_byte", [True, False], ids=["by the byte", "by the file"])
def test_single_bytes(source: Path, out: Path, by_the_byte: bool) -> None:
    """With nothing but the digests in gatenorm.json, and in that file itself."""
    for path, part in damages(files_of(out), by_the_byte=by_the_byte, count=DAMAGES // 2):
        with pytest.raises(GateNormError) as caught:
            gatenorm_stream.verify(out)
        assert path.name in str(caught.value)
        assert part in str(caught.value)
    gatenorm_stream.verify(out, against=source)


@pytest.mark.parametrize("by_the_byte", [True, False], ids=["by the byte", "by the file"])
def test_single_bytes_and_digests_that_fit_them(source: Path, out: Path, by_the_byte: bool) -> None:
    """With nothing but the source, which tells nothing of the model card, its picture and gatenorm.json."""
    plan, files = read_plan(out / "gatenorm.json"), [p for p in files_of(out) if p.name != "gatenorm.json"]
    compared = [p for p in files if p.name not in ("README.md", "gatenorm.svg")]
    for path, part in damages(compared, by_the_byte=by_the_byte, count=DAMAGES // 2):
        digests = {p.name: FileDigest(p.stat().st_size, blake3(p.read_bytes()).hexdigest()) for p in files}
        (out / "gatenorm.json").write_text(render_record(plan, digests))
        with pytest.raises(GateNormError) as caught:
            gatenorm_stream.verify(out, against=source)
        assert path.name in str(caught.value)
        assert part in ("", "its header", *str(caught.value).split())
