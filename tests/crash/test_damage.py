"""A thousand single bytes, anywhere in an output, are changed one at a time: each is found, and what it hit.

With CRASH_STEP=6 a sixth of them.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import gatenorm_stream
from gatenorm_stream.checkpoint.gguf import open_gguf
from gatenorm_stream.errors import GateNormError
from gatenorm_stream.sources.local import LocalSource
from tests import gguf_files
from tests.checkpoints import llama_config, llama_shapes, random_tensors, write_checkpoint
from tests.crash.crashing import STEP
from tests.records import files_of, record_anew

DAMAGES = 1000 // STEP

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
    for path, part in damages(
        [*files_of(out).values(), out / "gatenorm.json"], by_the_byte=by_the_byte, count=DAMAGES // 2
    ):
        with pytest.raises(GateNormError) as caught:
            gatenorm_stream.verify(out)
        assert path.name in str(caught.value)
        assert part in str(caught.value)
    gatenorm_stream.verify(out, against=source)


@pytest.mark.parametrize("by_the_byte", [True, False], ids=["by the byte", "by the file"])
def test_single_bytes_and_digests_that_fit_them(source: Path, out: Path, by_the_byte: bool) -> None:
    """With nothing but the source, which tells nothing of the model card, its picture and gatenorm.json."""
    compared = [p for p in files_of(out).values() if p.name not in ("README.md", "gatenorm.svg")]
    for path, part in damages(compared, by_the_byte=by_the_byte, count=DAMAGES // 2):
        record_anew(out)
        with pytest.raises(GateNormError) as caught:
            gatenorm_stream.verify(out, against=source)
        assert path.name in str(caught.value)
        assert part in ("", "its header", *str(caught.value).split())


def test_single_bytes_of_a_gguf_file_and_digests_that_fit_them(tmp_path: Path) -> None:
    """The same, in metadata, tensors (some with their rows in another order than the source's) and padding."""
    content = gguf_files.tensors(gguf_files.shapes(bias=True), "Q4_0")
    content |= {"rope_freqs.weight": (np.ones(5, np.float32), "F32")}
    source, out = gguf_files.write_gguf(tmp_path / "m.gguf", content, "qwen2"), tmp_path / "out.gguf"
    gatenorm_stream.prune(gatenorm_stream.plan(source, layers=[1, 2]), out)
    whole = out.read_bytes()
    with open_gguf(LocalSource(tmp_path, gguf=(out.name,))) as opened:
        places, start = {n: t.range for n, t in opened.tensors.items()}, opened.shards[0].header.data_start
    rng = random.Random(5)
    for nth in range(DAMAGES // 2):
        position = rng.randrange(len(whole) if nth % 3 else start)
        damaged = bytearray(whole)
        damaged[position] ^= rng.randrange(1, 256)
        out.write_bytes(damaged)
        record_anew(out)
        with pytest.raises(GateNormError) as caught:
            gatenorm_stream.verify(out, against=source)
        if part := next((n for n, r in places.items() if r.start <= position < r.stop), None):
            assert part in str(caught.value).split()
    out.write_bytes(whole)
    record_anew(out)
    gatenorm_stream.verify(out, against=source)
