"""`verify` finds each kind of damage, through the installed command and by flipping single bytes anywhere."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import gatenorm_stream
from gatenorm_stream.errors import GateNormError, VerificationError
from gatenorm_stream.planning.plan import read_plan
from gatenorm_stream.writing.record import FileDigest, render_record
from tests.checkpoints import (
    llama_config,
    llama_shapes,
    random_tensors,
    read_tensors,
    write_checkpoint,
    write_shard,
)
from tests.conftest import Run
from tests.records import record_anew


@pytest.fixture(scope="module")
def pruned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a source `llama` and its output `out`, without attention in layers 1 and 3."""
    folder = tmp_path_factory.mktemp("pruned")
    root = write_checkpoint(folder / "llama", random_tensors(llama_shapes()), llama_config())
    gatenorm_stream.prune(gatenorm_stream.plan(root, layers=[1, 3]), folder / "out")
    return folder


@pytest.fixture
def copy(pruned: Path, tmp_path: Path) -> Path:
    shutil.copytree(pruned, tmp_path / "copy")
    return tmp_path / "copy"


def all_files(root: Path) -> list[Path]:
    return sorted(p for p in root.rglob("*") if p.is_file())


def test_a_sound_output(run: Run, pruned: Path) -> None:
    done = run("verify", pruned / "out", "--against", pruned / "llama")
    assert done.returncode == 0, done.stderr
    assert "9 files" in done.stdout
    assert "each the same as in" in done.stdout
    verified = gatenorm_stream.verify(pruned / "out")
    assert verified.tensors == len(read_tensors(pruned / "out"))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_single_flipped_bit_is_found(pruned: Path, draw: st.DataObject) -> None:
    path = draw.draw(st.sampled_from(all_files(pruned / "out")))
    original = path.read_bytes()
    position = draw.draw(st.integers(0, len(original) - 1))
    damaged = bytearray(original)
    damaged[position] ^= 1 << draw.draw(st.integers(0, 7))
    path.write_bytes(damaged)
    try:
        with pytest.raises(GateNormError):
            gatenorm_stream.verify(pruned / "out")
    finally:
        path.write_bytes(original)


def cut(root: Path) -> None:
    path = root / "model-00001-of-00002.safetensors"
    path.write_bytes(path.read_bytes()[:-1])


def add_shard(root: Path) -> None:
    write_shard(root / "extra.safetensors", {"ghost": ("U8", [1], b"x")})


def edit_plan(root: Path) -> None:
    path = root / "gatenorm.json"
    path.write_text(path.read_text().replace('"dropped": [\n  1,', '"dropped": [\n  2,'))


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing shard": (
        lambda root: (root / "model-00002-of-00002.safetensors").unlink(),
        "model-00002-of-00002.safetensors is missing",
    ),
    "truncated shard": (cut, "bytes long instead of"),
    "extra shard": (add_shard, "extra.safetensors does not belong here"),
    "missing config": (lambda root: (root / "config.json").unlink(), "config.json is missing"),
    "missing tokenizer": (lambda root: (root / "tokenizer.json").unlink(), "tokenizer.json is missing"),
    "changed runtime file": (
        lambda root: (root / "modeling_gatenorm.py").write_text("import os"),
        "modeling_gatenorm.py is",
    ),
    "changed plan": (edit_plan, "gatenorm.json was changed"),
    "missing plan": (lambda root: (root / "gatenorm.json").unlink(), "not an output of gatenorm-stream"),
    "plan is not text": (lambda root: (root / "gatenorm.json").write_bytes(b"\xff"), "gatenorm.json was changed"),
}


@pytest.mark.parametrize(("damage", "says"), DAMAGE.values(), ids=DAMAGE.keys())
def test_damage_is_named(run: Run, copy: Path, damage: Callable[[Path], object], says: str) -> None:
    damage(copy / "out")
    done = run("verify", copy / "out")
    assert done.returncode == 1
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def rewrite_shard(out: Path, change: Callable[[dict[str, tuple[str, tuple[int, ...], bytes]]], object]) -> None:
    tensors = read_tensors(out)
    change(tensors)
    for path in out.glob("*.safetensors*"):
        path.unlink()
    write_shard(out / "model.safetensors", tensors)


def drop_tensor(out: Path) -> None:
    rewrite_shard(out, lambda t: t.pop("model.layers.0.mlp.up_proj.weight"))


def flip_value(out: Path) -> None:
    def change(tensors: dict[str, tuple[str, tuple[int, ...], bytes]]) -> None:
        dtype, shape, data = tensors["model.norm.weight"]
        tensors["model.norm.weight"] = dtype, shape, bytes([data[0] ^ 1]) + data[1:]

    rewrite_shard(out, change)


def reshape(out: Path) -> None:
    def change(tensors: dict[str, tuple[str, tuple[int, ...], bytes]]) -> None:
        dtype, (a, b), data = tensors["lm_head.weight"]
        tensors["lm_head.weight"] = dtype, (b, a), data

    rewrite_shard(out, change)


def restore_attention(out: Path) -> None:
    source = read_tensors(out.parent / "llama")
    rewrite_shard(out, lambda t: t.update({n: v for n, v in source.items() if n not in t}))


def set_config(**changes: object) -> Callable[[Path], None]:
    def change(out: Path) -> None:
        config = json.loads((out / "config.json").read_text())
        (out / "config.json").write_text(json.dumps(config | changes))

    return change


def lie_in_index(out: Path) -> None:
    path = out / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    index["weight_map"]["model.norm.weight"] = "model-00009-of-00009.safetensors"
    path.write_text(json.dumps(index))


LIES: dict[str, tuple[Callable[[Path], object], str]] = {
    "a tensor is missing": (drop_tensor, "model.layers.0.mlp.up_proj.weight is missing from model-0000"),
    "a value is flipped": (flip_value, "model.norm.weight in model.safetensors differs from the source's"),
    "a shape is changed": (reshape, "lm_head.weight in model.safetensors has another dtype or shape"),
    "attention is still there": (restore_attention, "layer 1 has attention tensors, against the plan"),
    "another hidden size": (set_config(rms_norm_eps=1e-3), "config.json is not what the plan makes"),
    "the config keeps a layer": (
        set_config(block_configs=[{"attention": {"no_op": False}}] * 4),
        "config.json says layers [] have no attention",
    ),
    "the index lies": (
        lie_in_index,
        "puts model.norm.weight in model-00009-of-00009.safetensors, it stands in model-0000",
    ),
    "another tokenizer": (lambda out: (out / "tokenizer.json").write_text("{}"), "tokenizer.json differs"),
}


@pytest.mark.parametrize(("lie", "says"), LIES.values(), ids=LIES.keys())
def test_lies_with_fitting_digests_are_found_against_the_source(
    run: Run, copy: Path, lie: Callable[[Path], object], says: str
) -> None:
    lie(copy / "out")
    record_anew(copy / "out")
    done = run("verify", copy / "out", "--against", copy / "llama")
    assert done.returncode == 1
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_zeroed_output_must_be_zero(copy: Path) -> None:
    gatenorm_stream.prune(gatenorm_stream.plan(copy / "llama", layers=[2], format="zeroed"), copy / "zeroed")
    gatenorm_stream.verify(copy / "zeroed", against=copy / "llama")
    shutil.copy(copy / "llama/model-00001-of-00002.safetensors", copy / "zeroed")
    shutil.copy(copy / "llama/model-00002-of-00002.safetensors", copy / "zeroed")
    record_anew(copy / "zeroed")
    with pytest.raises(VerificationError, match="o_proj.weight in model-0000.-of-00002.safetensors is not zero"):
        gatenorm_stream.verify(copy / "zeroed", against=copy / "llama")


def test_against_another_model(copy: Path, tmp_path: Path) -> None:
    other = write_checkpoint(tmp_path / "other", random_tensors(llama_shapes(), seed=9), llama_config())
    with pytest.raises(VerificationError, match="differ"):
        gatenorm_stream.verify(copy / "out", against=other)
    fewer = write_checkpoint(tmp_path / "fewer", random_tensors(llama_shapes(3)), llama_config(num_hidden_layers=3))
    with pytest.raises(GateNormError, match="made for a llama of 4 attention layers"):
        gatenorm_stream.verify(copy / "out", against=fewer)


def spans(shard: Path) -> list[tuple[str, int, int]]:
    """Each tensor's name and where its bytes stand in the file; first the header, as ""."""
    data = shard.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    header.pop("__metadata__", None)
    return [("", 0, start)] + [(n, *(start + o for o in t["data_offsets"])) for n, t in header.items()]


def test_the_damaged_tensor_is_named(copy: Path) -> None:
    for shard in sorted((copy / "out").glob("*.safetensors")):
        original = shard.read_bytes()
        for name, start, stop in spans(shard):
            for position in (start, stop - 1):
                damaged = bytearray(original)
                damaged[position] ^= 1
                shard.write_bytes(damaged)
                with pytest.raises(VerificationError) as caught:
                    gatenorm_stream.verify(copy / "out")
                assert caught.value.problems == (
                    f"{shard.name} was changed: its BLAKE3 digest differs, first in {name or 'its header'}",
                )
        shard.write_bytes(original)


@pytest.mark.parametrize("name", ["../llama/config.json", "/etc/passwd", "a\\b", ".gatenorm-journal"])
def test_a_record_that_lists_files_elsewhere(copy: Path, name: str) -> None:
    files = {name: FileDigest(0, "0" * 64)}
    record = copy / "out" / "gatenorm.json"
    record.write_text(render_record(read_plan(record), files))
    with pytest.raises(VerificationError, match="which could be anywhere"):
        gatenorm_stream.verify(copy / "out")


def test_a_record_without_marks_is_read(copy: Path) -> None:
    """As written before there were any; then only the file is named."""
    record_anew(copy / "out")
    assert '"marks"' not in (copy / "out" / "gatenorm.json").read_text()
    gatenorm_stream.verify(copy / "out", against=copy / "llama")
