"""A thousand single bytes, anywhere in an output, are changed one at a time: each is found, and what it hit."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from checkpoints import llama_config, llama_shapes, random_tensors, write_checkpoint

import gatenorm_stream
from gatenorm_stream.errors import GateNormError

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


@pytest.mark.parametrize("anywhere", ["by the byte", "by the file"])
def test_single_bytes(tmp_path: Path, anywhere: str) -> None:
    source = write_checkpoint(tmp_path / "source", random_tensors(llama_shapes()), llama_config())
    out = tmp_path / "out"
    gatenorm_stream.prune(gatenorm_stream.plan(source, layers=[1, 2]), out)
    files = sorted(p for p in out.rglob("*") if p.is_file())
    sizes = [p.stat().st_size for p in files] if anywhere == "by the byte" else [1] * len(files)
    rng = random.Random(5)
    for path in rng.choices(files, sizes, k=DAMAGES // 2):
        original = path.read_bytes()
        position = rng.randrange(len(original))
        if path.suffix == ".safetensors" and rng.randrange(3) == 0:
            position = rng.randrange(8 + int.from_bytes(original[:8], "little"))
        damaged = bytearray(original)
        damaged[position] ^= rng.randrange(1, 256)
        part = hit(path, position)
        path.write_bytes(damaged)
        with pytest.raises(GateNormError) as caught:
            gatenorm_stream.verify(out)
        message = str(caught.value)
        if path.name != "gatenorm.json":
            assert path.relative_to(out).as_posix() in message
            assert part in message
        path.write_bytes(original)
    gatenorm_stream.verify(out, against=source)
