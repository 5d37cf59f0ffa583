"""What is written of a constant in the place of attention, read independently: which tensors, which bytes."""

from __future__ import annotations

import json
import math
import re
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import gatenorm_stream
from gatenorm_stream.errors import FormatError, PlanError, VerificationError
from gatenorm_stream.floats import narrow
from gatenorm_stream.planning.plan import read_plan
from gatenorm_stream.writing.record import parse_record, render_record
from tests import gguf_files
from tests.checkpoints import (
    HIDDEN,
    INTERMEDIATE,
    LAYERS,
    llama_config,
    llama_shapes,
    random_tensors,
    read_tensors,
    write_checkpoint,
    write_shard,
)
from tests.conftest import Run
from tests.constants import as_float, compensate, compensated_plan, nearest, random_vectors, rounded

SIZES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
MLP = ("gate_proj", "up_proj", "down_proj")


@given(st.floats(width=32, allow_nan=False, allow_infinity=False), st.sampled_from(sorted(SIZES)))
def test_numbers_are_rounded_to_the_nearest(number: float, dtype: str) -> None:
    if dtype == "BF16":
        assume(abs(number) < as_float(0x7F7F))
    given_ = struct.pack("<f", number)
    try:
        expected = nearest(number, dtype)
    except OverflowError:
        with pytest.raises(OverflowError):
            narrow(given_, dtype)
        return
    assert narrow(given_, dtype) == expected


@pytest.mark.parametrize(("number", "dtype"), [(3.4e38, "BF16"), (-3.4e38, "BF16"), (65520.0, "F16")])
def test_a_number_beyond_the_dtype(number: float, dtype: str) -> None:
    with pytest.raises(OverflowError):
        narrow(struct.pack("<2f", 0.0, number), dtype)
    assert math.isfinite(struct.unpack("<f", struct.pack("<f", number))[0])


@pytest.mark.parametrize("layers", [(2,), (1, 3), (2, 3)], ids=str)
@pytest.mark.parametrize("dtype", sorted(SIZES))
def test_no_op_writes_biases_of_the_mlp_before(dtype: str, layers: tuple[int, ...], tmp_path: Path) -> None:
    source = write_checkpoint(tmp_path / "s", random_tensors(llama_shapes()), llama_config(), dtype=dtype, seed=3)
    vectors = random_vectors(layers, HIDDEN)
    out = compensate(source, vectors, "no-op", tmp_path)
    before, after = read_tensors(source), read_tensors(out)
    biases = {name: after.pop(name) for name in list(after) if name.endswith(".bias")}
    assert after.items() <= before.items()
    expected = {}
    for layer in range(LAYERS):
        for part, width in zip(MLP, (INTERMEDIATE, INTERMEDIATE, HIDDEN), strict=True):
            held = part == "down_proj" and layer + 1 in vectors
            content = rounded(vectors[layer + 1], dtype) if held else bytes(width * SIZES[dtype])
            expected[f"model.layers.{layer}.mlp.{part}.bias"] = (dtype, (width,), content)
    assert biases == expected
    config = json.loads((out / "config.json").read_text())
    assert config["mlp_bias"] is True
    assert config["gatenorm"]["pruned_layers"] == list(layers)
    assert "constants" not in config["gatenorm"]
    assert "A constant vector takes the place of each" in (out / "README.md").read_text("utf-8")
    index = json.loads((out / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == sum(len(data) for _, _, data in (*after.values(), *biases.values()))


@pytest.mark.parametrize("model_type", ["llama", "mistral", "qwen2"])
def test_transformers_builds_what_has_biases_in_its_mlp(model_type: str, tmp_path: Path) -> None:
    config = llama_config(model_type=model_type, sliding_window=None)
    source = write_checkpoint(tmp_path / "s", random_tensors(llama_shapes()), config)
    out = compensate(source, random_vectors((1,), HIDDEN), "no-op", tmp_path)
    assert json.loads((out / "config.json").read_text())["gatenorm"]["architecture"] == "LlamaForCausalLM"


@pytest.mark.parametrize("dtype", sorted(SIZES))
def test_transformers_format_writes_a_parameter(dtype: str, tmp_path: Path) -> None:
    source = write_checkpoint(tmp_path / "s", random_tensors(llama_shapes()), llama_config(), dtype=dtype, seed=1)
    vectors = random_vectors((0, 2), HIDDEN)
    out = compensate(source, vectors, "transformers", tmp_path)
    before, after = read_tensors(source), read_tensors(out)
    assert after.items() - before.items() == {
        (f"model.layers.{layer}.self_attn.constant", (dtype, (HIDDEN,), rounded(vector, dtype)))
        for layer, vector in vectors.items()
    }
    assert json.loads((out / "config.json").read_text())["gatenorm"]["constants"] is True


def test_beside_weights_of_8_bits_it_is_bfloat16(tmp_path: Path) -> None:
    source = write_checkpoint(tmp_path / "s", random_tensors(llama_shapes()), llama_config(), shards=1)
    held = read_tensors(source)
    held = {
        name: ("F8_E4M3", shape, bytes(len(data) // 2)) if "o_proj" in name else (dtype, shape, data)
        for name, (dtype, shape, data) in held.items()
    }
    write_shard(source / "model.safetensors", held)
    vectors = random_vectors((1,), HIDDEN)
    written = read_tensors(compensate(source, vectors, "transformers", tmp_path))
    expected = ("BF16", (HIDDEN,), rounded(vectors[1], "BF16"))
    assert written["model.layers.1.self_attn.constant"] == expected


def test_zeroed_writes_the_bias_of_the_output_projection(tmp_path: Path) -> None:
    config = llama_config(attention_bias=True)
    source = write_checkpoint(tmp_path / "s", random_tensors(llama_shapes(bias=True)), config, seed=2)
    vectors = random_vectors((0, 3), HIDDEN)
    out = compensate(source, vectors, "zeroed", tmp_path)
    before, after = read_tensors(source), read_tensors(out)
    changed = {name: after[name][2] for name in after if after[name] != before[name]}
    bias, weight = "model.layers.{}.self_attn.o_proj.bias", "model.layers.{}.self_attn.o_proj.weight"
    assert changed == {
        **{bias.format(n): rounded(v, "BF16") for n, v in vectors.items()},
        **{weight.format(n): bytes(2 * HIDDEN * HIDDEN) for n in vectors},
    }
    assert before.keys() == after.keys()


def test_zeroed_is_plain_where_there_is_no_such_bias(llama: Path, tmp_path: Path, run: Run) -> None:
    plan = compensated_plan(llama, random_vectors((1, 2), HIDDEN), "zeroed")
    (tmp_path / "plan.json").write_text(json.dumps(plan.to_json()))
    done = run(llama, "--out", tmp_path / "out", "--plan", tmp_path / "plan.json")
    assert done.returncode == 0, done.stderr
    assert "zeroed holds no constants in this model" in " ".join(done.stdout.split())
    assert "constant vector" not in (tmp_path / "out/README.md").read_text("utf-8")
    gatenorm_stream.prune(replace(plan, constants={}), tmp_path / "plain")
    assert read_tensors(tmp_path / "out") == read_tensors(tmp_path / "plain")


@pytest.mark.parametrize("dtype", ["F32", "BF16", "Q8_0"])
@pytest.mark.parametrize(
    ("format", "name"), [("no-op", "blk.{before}.ffn_down.bias"), ("zeroed", "blk.{layer}.attn_output.bias")]
)
def test_gguf_writes_a_bias_in_float32(dtype: str, format: str, name: str, tmp_path: Path) -> None:
    content = gguf_files.tensors(gguf_files.shapes(), dtype)
    source = gguf_files.write_gguf(tmp_path / "m.gguf", content, alignment=64)
    vectors = random_vectors((1, 2), gguf_files.HIDDEN)
    out = compensate(source, vectors, format, tmp_path)
    (before_fields, before), (fields, after) = gguf_files.read(source), gguf_files.read(out)
    added = {name for name in after if name not in before}
    assert {n: after[n] for n in added} == {
        name.format(layer=layer, before=layer - 1): ((gguf_files.HIDDEN,), "F32", vector.tobytes())
        for layer, vector in vectors.items()
    }
    zeroed = {f"blk.{layer}.attn_output.weight" for layer in vectors if format == "zeroed"}
    assert all(after[n] == before[n] for n in after.keys() - added - zeroed)
    assert not any(any(after[n][2]) for n in zeroed)
    plain = gatenorm_stream.plan(source, layers=(1, 2), format=format)
    gatenorm_stream.prune(plain, tmp_path / "plain.gguf")
    assert fields == gguf_files.read(tmp_path / "plain.gguf")[0]
    assert before_fields["tokenizer.ggml.tokens"] == fields["tokenizer.ggml.tokens"]


def test_gguf_zeroed_fills_a_bias_that_is_there(tmp_path: Path) -> None:
    shapes = gguf_files.shapes() | {f"blk.{n}.attn_output.bias": (gguf_files.HIDDEN,) for n in range(4)}
    source = gguf_files.write_gguf(tmp_path / "m.gguf", gguf_files.tensors(shapes), "phi2")
    vectors = random_vectors((0, 2), gguf_files.HIDDEN)
    (_, before), (_, after) = (
        gguf_files.read(p) for p in (source, compensate(source, vectors, "zeroed", tmp_path))
    )
    changed = {name for name in after if after[name] != before[name]}
    assert changed == {f"blk.{n}.attn_output.{part}" for n in vectors for part in ("weight", "bias")}
    assert all(after[f"blk.{n}.attn_output.bias"][2] == v.tobytes() for n, v in vectors.items())


def test_gguf_zeroed_is_plain_where_the_bias_is_unknown(tmp_path: Path) -> None:
    source = gguf_files.write_gguf(tmp_path / "m.gguf", gguf_files.tensors(gguf_files.shapes()), "qwen2")
    out = compensate(source, random_vectors((1,), gguf_files.HIDDEN), "zeroed", tmp_path)
    assert gguf_files.read(out)[1].keys() == gguf_files.read(source)[1].keys()


@pytest.mark.parametrize(
    ("layers", "changes", "says"),
    [
        ((0, 2), {}, "layer 0 stands in the way (its constant would be the bias of a layer before it"),
        ((2,), {"mlp_bias": True}, "mlp_bias=true stands in the way (the constants would be the biases of its MLP"),
    ],
)
def test_no_op_says_what_it_cant_hold(
    layers: tuple[int, ...], changes: dict[str, bool], says: str, tmp_path: Path
) -> None:
    source = write_checkpoint(tmp_path / "s", random_tensors(llama_shapes()), llama_config(**changes))
    engines = ["transformers"]  # which alone runs layer 0 in this form
    plan = gatenorm_stream.plan(source, layers=layers, format="no-op", engines=engines)
    compensated = replace(plan, constants={n: bytes(4 * HIDDEN) for n in layers})
    with pytest.raises(FormatError, match=re.escape(says)) as caught:
        gatenorm_stream.prune(compensated, tmp_path / "out")
    assert str(caught.value).endswith("use --format transformers, or prune without constants (--no-compensate)")
    assert not (tmp_path / "out").exists()


def test_gguf_no_op_says_what_it_cant_hold(tmp_path: Path) -> None:
    shapes = gguf_files.shapes() | {"blk.0.ffn_down.bias": (gguf_files.HIDDEN,)}
    source = gguf_files.write_gguf(tmp_path / "m.gguf", gguf_files.tensors(shapes))
    plan = compensated_plan(source, random_vectors((1,), gguf_files.HIDDEN), "no-op")
    with pytest.raises(FormatError, match=re.escape("blk.0.ffn_down.bias stands in the way (the constant of")):
        gatenorm_stream.prune(plan, tmp_path / "out.gguf")


def test_sglang_is_named(llama: Path, tmp_path: Path, run: Run) -> None:
    plan = compensated_plan(llama, random_vectors((1, 2), HIDDEN), "no-op")
    (tmp_path / "plan.json").write_text(json.dumps(plan.to_json()))
    done = run(llama, "--dry-run", "--plan", tmp_path / "plan.json")
    assert done.returncode == 0, done.stderr
    told = " ".join(done.stdout.split())
    assert "not in sglang: the constant: its MLP of this form has no bias and would drop it silently" in told
    assert "runs in transformers, llama.cpp, mlx-lm, vllm" in told


def test_a_number_too_large_for_the_checkpoint(tmp_path: Path) -> None:
    source = write_checkpoint(tmp_path / "s", random_tensors(llama_shapes()), llama_config(), dtype="F16")
    plan = compensated_plan(source, {1: np.full(HIDDEN, 1e6, np.float32)}, "no-op")
    with pytest.raises(FormatError, match="would hold a number too large for F16"):
        gatenorm_stream.prune(plan, tmp_path / "out")


def test_constants_of_another_size(llama: Path, tmp_path: Path) -> None:
    plan = compensated_plan(llama, random_vectors((1,), HIDDEN + 1), "no-op")
    with pytest.raises(PlanError, match=f"constants of {HIDDEN + 1} numbers, but the hidden size of"):
        gatenorm_stream.prune(plan, tmp_path / "out")


def test_a_record_repeats_the_same_bytes(llama: Path, tmp_path: Path) -> None:
    out = compensate(llama, random_vectors((1, 2), HIDDEN), "no-op", tmp_path)
    gatenorm_stream.prune(read_plan(out / "gatenorm.json"), tmp_path / "again")
    files = {p.name: p.read_bytes() for p in out.iterdir()}
    assert {p.name: p.read_bytes() for p in (tmp_path / "again").iterdir()} == files


@pytest.mark.parametrize("format", ["no-op", "transformers"])
def test_verify_finds_another_constant(format: str, llama: Path, tmp_path: Path) -> None:
    """The record tells of other constants than were written, and its own digest was made to fit."""
    out = compensate(llama, random_vectors((1, 2), HIDDEN), format, tmp_path)
    plan, files = parse_record((out / "gatenorm.json").read_text(), "here")
    other = {layer: struct.pack("<f", 9.0) + vector[4:] for layer, vector in plan.constants.items()}
    (out / "gatenorm.json").write_text(render_record(replace(plan, constants=other), files))
    gatenorm_stream.verify(out)
    with pytest.raises(VerificationError) as caught:
        gatenorm_stream.verify(out, against=llama)
    changed = r"\.mlp\.down_proj\.bias" if format == "no-op" else r"\.self_attn\.constant"
    assert any(re.search(changed, problem) for problem in caught.value.problems)
