"""What each tensor of an output must hold, in safetensors and GGUF: one changed bit anywhere is found and named."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import gatenorm_stream
from gatenorm_stream.checkpoint.gguf import open_gguf
from gatenorm_stream.checkpoint.safetensors import open_checkpoint
from gatenorm_stream.checkpoint.tensors import Checkpoint
from gatenorm_stream.errors import CheckpointError, GateNormError, PlanError, VerificationError
from gatenorm_stream.sources.local import LocalSource
from gatenorm_stream.sources.ranges import ByteRange
from gatenorm_stream.verifying import content
from tests import gguf_files
from tests.bytes_read import bytes_read, counted
from tests.checkpoints import llama_config, random_tensors, shapes_of, write_checkpoint
from tests.records import record_anew

KINDS = ("qwen2", "zeroed", "gguf qwen2", "gguf zeroed")
LAYER = "model.layers"
DIFFERS, NOT_ZERO = "differs from the source's", "is not zero"
TENSORS = [
    ("qwen2", f"{LAYER}.0.mlp.up_proj.weight", DIFFERS),
    ("qwen2", f"{LAYER}.1.self_attn.q_proj.bias", DIFFERS),
    ("qwen2", f"{LAYER}.1.self_attn.o_proj.bias", NOT_ZERO),
    ("zeroed", f"{LAYER}.2.mlp.up_proj.weight", DIFFERS),
    ("zeroed", f"{LAYER}.2.self_attn.o_proj.weight", NOT_ZERO),
    ("gguf qwen2", "blk.0.ffn_up.weight", DIFFERS),
    ("gguf qwen2", "blk.1.attn_q.weight", DIFFERS),
    ("gguf qwen2", "blk.1.attn_k.bias", DIFFERS),
    ("gguf zeroed", "blk.2.ffn_up.weight", DIFFERS),
    ("gguf zeroed", "blk.2.attn_output.weight", NOT_ZERO),
]
"""Kept, added, zeroed and interleaved ones, each with what is said of it."""


@dataclass(frozen=True)
class Pruned:
    source: Path
    out: Path

    @property
    def weights(self) -> list[Path]:
        return sorted(self.out.glob("*.safetensors")) if self.out.is_dir() else [self.out]

    def problems(self) -> tuple[str, ...]:
        with pytest.raises(VerificationError) as caught:
            gatenorm_stream.verify(self.out, against=self.source)
        return caught.value.problems


def places(model: Path) -> dict[str, tuple[Path, int, int]]:
    """Each tensor's file, and where its bytes begin and end there."""
    if model.is_dir():
        opened: Checkpoint = open_checkpoint(LocalSource(model))
    else:
        opened = open_gguf(LocalSource(model.parent, gguf=(model.name,)))
    with opened:
        tensors = opened.tensors.items()
        return {
            n: (model / t.shard.name if model.is_dir() else model, t.range.start, t.range.stop) for n, t in tensors
        }


def prune(kind: str, folder: Path, ballast: int = 5) -> Pruned:
    """Without the attention of layer 2; "qwen2" is no-op. A GGUF needs padding behind its `ballast` numbers."""
    format_ = "zeroed" if kind.endswith("zeroed") else "no-op"
    if kind.startswith("gguf"):
        made = gguf_files.tensors(gguf_files.shapes(bias=True), "Q4_0")
        made["rope_freqs.weight"] = (np.ones(ballast, np.float32), "F32")
        source, out = gguf_files.write_gguf(folder / "source.gguf", made, "qwen2"), folder / "out.gguf"
    else:
        config = llama_config(model_type="qwen2", architectures=["Qwen2ForCausalLM"])
        shapes = {n: s for n, s in shapes_of(config, bias=True).items() if not n.endswith("o_proj.bias")}
        shapes["model.layers.0.self_attn.rotary_emb.inv_freq"] = (ballast,)
        source, out = write_checkpoint(folder / "source", random_tensors(shapes), config), folder / "out"
    gatenorm_stream.prune(gatenorm_stream.plan(source, layers=[2], format=format_), out)
    return Pruned(source, out)


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Pruned]:
    return {kind: prune(kind, tmp_path_factory.mktemp(kind.replace(" ", "-"))) for kind in KINDS}


@pytest.fixture
def output(outputs: dict[str, Pruned], tmp_path: Path) -> Callable[[str], Pruned]:
    """The test's own copy of an output, which may be damaged."""

    def copy(kind: str) -> Pruned:
        made, folder = outputs[kind], tmp_path / "copy"
        if not folder.exists():
            shutil.copytree(made.out.parent, folder)
        return Pruned(folder / made.source.name, folder / made.out.name)

    return copy


def flip(path: Path, position: int) -> Callable[[], object]:
    """Changes one bit; what it gives puts it right again."""
    original = path.read_bytes()
    damaged = bytearray(original)
    damaged[position] ^= 1
    path.write_bytes(damaged)
    return lambda: path.write_bytes(original)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("chunk", [content.CHUNK, 1000])
def test_sound(kind: str, chunk: int, outputs: dict[str, Pruned], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(content, "CHUNK", chunk)
    told: list[tuple[str, int, int]] = []

    def progress(what: str, done: int, total: int, file: str) -> None:
        told.append((what, done, total))

    made = outputs[kind]
    verified = gatenorm_stream.verify(made.out, against=made.source, progress=progress)
    assert verified.tensors == len(places(made.out))
    for what, total in (
        ("verifying", verified.bytes),
        ("comparing", sum(stop - start for _, start, stop in places(made.out).values())),
    ):
        steps = [done for said, done, _ in told if said == what]
        assert steps == sorted(steps)
        assert {whole for said, _, whole in told if said == what} == {total} == {steps[-1]}


@pytest.mark.parametrize(("kind", "name", "fault"), TENSORS, ids=[f"{kind}-{name}" for kind, name, _ in TENSORS])
def test_one_bit_of_a_tensor(kind: str, name: str, fault: str, output: Callable[[str], Pruned]) -> None:
    """By the digest on record; and by the source alone, if the record was made to fit."""
    made = output(kind)
    path, start, stop = places(made.out)[name]
    called, located = (path.name, f"{name} in {path.name}") if made.out.is_dir() else ("it", name)
    for position in (start, stop - 1):
        mend = flip(path, position)
        assert made.problems() == (f"{called} was changed: its BLAKE3 digest differs, first in {name}",)
        mend()
    record_anew(made.out)
    for position in (start, stop - 1):
        mend = flip(path, position)
        record_anew(made.out)
        assert made.problems() == (f"{located} {fault}",)
        mend()


@settings(max_examples=5, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
@pytest.mark.parametrize("kind", KINDS)
def test_one_bit_anywhere_and_a_record_that_fits(
    kind: str, output: Callable[[str], Pruned], draw: st.DataObject
) -> None:
    made = output(kind)
    path = draw.draw(st.sampled_from(made.weights))
    mend = flip(path, draw.draw(st.integers(0, path.stat().st_size - 1)))
    record_anew(made.out)
    try:
        with pytest.raises(GateNormError):
            gatenorm_stream.verify(made.out, against=made.source)
    finally:
        mend()


def test_rows_in_the_order_of_the_source(output: Callable[[str], Pruned]) -> None:
    """What is brought into pairs is not taken as it stands in the source."""
    made = output("gguf qwen2")
    name = "blk.1.attn_q.weight"
    path, start, stop = places(made.out)[name]
    _, first, last = places(made.source)[name]
    data = bytearray(path.read_bytes())
    assert data[start:stop] != made.source.read_bytes()[first:last]
    data[start:stop] = made.source.read_bytes()[first:last]
    path.write_bytes(data)
    record_anew(made.out)
    assert made.problems() == (f"{name} {DIFFERS}",)


def test_bytes_between_tensors(output: Callable[[str], Pruned]) -> None:
    made = output("gguf zeroed")
    _, _, stop = places(made.out)["rope_freqs.weight"]
    flip(made.out, stop + 3)
    record_anew(made.out)
    gatenorm_stream.verify(made.out)
    assert made.problems() == ("the bytes behind rope_freqs.weight are not zero",)


def test_bytes_of_headers(output: Callable[[str], Pruned]) -> None:
    made = output("gguf zeroed")
    flip(made.out, made.out.read_bytes().index(b"a na\xc3\xafve"))
    assert made.problems() == ("it was changed: its BLAKE3 digest differs, first in its header",)
    record_anew(made.out)
    assert made.problems() == ("it does not begin with the header that the plan makes of the source",)


def test_a_header_that_is_none_and_a_record_that_fits(output: Callable[[str], Pruned]) -> None:
    made = output("gguf zeroed")
    flip(made.out, 0)
    assert made.problems() == ("it was changed: its BLAKE3 digest differs, first in its header",)
    record_anew(made.out)
    (problem,) = made.problems()
    assert "out.gguf has a bad GGUF header: it begins with b'FGUF'" in problem


def test_a_file_that_the_source_does_not_have(output: Callable[[str], Pruned]) -> None:
    made = output("qwen2")
    (made.out / "modeling_other.py").write_text("import os")
    record_anew(made.out)
    gatenorm_stream.verify(made.out)
    assert made.problems() == ("modeling_other.py is not in the source",)


@pytest.mark.parametrize("kind", ["zeroed", "gguf zeroed"])
def test_what_an_output_is_called_does_not_matter(kind: str, output: Callable[[str], Pruned]) -> None:
    made = output(kind)
    other = made.out.with_name("other.gguf" if made.out.is_dir() else "other")
    made.out.rename(other)
    if other.is_file():
        for ending in (".gatenorm.json", ".gatenorm.md"):
            made.out.with_suffix(ending).rename(other.with_suffix(ending))
    before = len(places(made.source))
    assert gatenorm_stream.verify(other, against=made.source).tensors == before


def test_a_record_of_the_other_kind(outputs: dict[str, Pruned], output: Callable[[str], Pruned]) -> None:
    directory, file = outputs["zeroed"], output("gguf zeroed")
    record = file.out.with_suffix(".gatenorm.json")
    folder = file.out.with_name("folder")
    folder.mkdir()
    shutil.move(record, folder / "gatenorm.json")
    with pytest.raises(VerificationError, match="the record in it is not that of a directory"):
        gatenorm_stream.verify(folder)
    shutil.copy(directory.out / "gatenorm.json", record)
    with pytest.raises(VerificationError, match="the record beside it is not that of a GGUF file"):
        gatenorm_stream.verify(file.out)


def test_against_a_source_of_the_other_kind(outputs: dict[str, Pruned]) -> None:
    directory, file = outputs["zeroed"], outputs["gguf zeroed"]
    with pytest.raises(PlanError, match="made for a gguf/qwen2 of 4 .* is a qwen2 of 4"):
        gatenorm_stream.verify(file.out, against=directory.source)
    with pytest.raises(PlanError, match="made for a qwen2 of 4 .* is a gguf/qwen2 of 4"):
        gatenorm_stream.verify(directory.out, against=file.source)


@counted
@pytest.mark.parametrize("kind", ["zeroed", "gguf zeroed"])
def test_a_damaged_file_is_read_once(kind: str, tmp_path: Path) -> None:
    made = prune(kind, tmp_path, ballast=3_000_001)
    name, (path, _, stop) = max(places(made.out).items(), key=lambda placed: placed[1][2])
    flip(path, stop - 1)
    files = [p for p in made.out.rglob("*") if p.is_file()] if made.out.is_dir() else [made.out]
    size, counts = sum(p.stat().st_size for p in files), bytes_read()
    assert f"first in {name}" in made.problems()[0]  # imports what is imported late
    next(counts)
    made.problems()
    assert size <= next(counts) < 1.3 * size


def test_a_bias_that_is_no_heads_has_no_halves(tmp_path: Path) -> None:
    made = dict(gguf_files.tensors(gguf_files.shapes(bias=True), "Q4_0"))
    made["blk.1.attn_q.bias"] = (np.ones(65, np.float32), "F32")
    source = gguf_files.write_gguf(tmp_path / "m.gguf", made, "qwen2")
    plan = gatenorm_stream.plan(source, layers=[2], format="no-op")
    with pytest.raises(CheckpointError, match=r"blk.1.attn_q.bias in .* has 65 rows, which are not the halves"):
        gatenorm_stream.prune(plan, tmp_path / "out.gguf")


def test_a_tensor_of_given_values(outputs: dict[str, Pruned]) -> None:
    """As for a tensor that an edit adds with values of its own."""
    with open_gguf(LocalSource(outputs["gguf zeroed"].out.parent, gguf=("out.gguf",))) as opened:
        tensor = opened.tensors["rope_freqs.weight"]
        values = np.ones(5, np.float32).tobytes()
        whole = content.Content("F32", (5,), values=values)
        other = content.Content("F32", (5,), values=values[:-1] + b"\1")
        parts = (ByteRange(0, 20), ByteRange(4, 9), ByteRange(19, 20))
        assert [content.holds(tensor, whole, part) for part in parts] == [True, True, True]
        assert [content.holds(tensor, other, part) for part in parts] == [False, True, False]
        assert other.fault == "is not what the plan makes of the source"
