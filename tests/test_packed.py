"""Packed weights are pruned without being scored: by --layers, or by a plan with the scores of the original."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gatenorm_stream
from gatenorm_stream.errors import CheckpointError, FormatError, HeaderError, UnsupportedModelError
from gatenorm_stream.families.open import open_model
from gatenorm_stream.planning.constants import constants_as_text
from gatenorm_stream.planning.decide import decide_again
from gatenorm_stream.sources.open import open_source
from tests import gguf_files
from tests.checkpoints import (
    llama_config,
    llama_shapes,
    random_tensors,
    read_tensors,
    write_checkpoint,
    write_shard,
)
from tests.conftest import Run

Part = tuple[str, tuple[int, ...]]
SIZES = {"F32": 4, "F16": 2, "BF16": 2, "I32": 4, "U32": 4, "U8": 1, "I8": 1, "F8_E4M3": 1, "I64": 8}
DROPPED = (2,)


@dataclass(frozen=True)
class Packing:
    """`parts` of (rows, columns) stand in the place of each projection's weight."""

    quantisation: Mapping[str, Any] | None
    parts: Any
    named: str
    """What a refusal calls it."""
    loads: bool = True
    key: str = "quantization_config"


def gptq(rows: int, columns: int) -> dict[str, Part]:
    return {
        "qweight": ("I32", (columns // 8, rows)),
        "qzeros": ("I32", (columns // 16, rows // 8)),
        "scales": ("F16", (columns // 16, rows)),
        "g_idx": ("I32", (columns,)),
    }


def awq(rows: int, columns: int) -> dict[str, Part]:
    return {
        "qweight": ("I32", (columns, rows // 8)),
        "qzeros": ("I32", (columns // 16, rows // 8)),
        "scales": ("F16", (columns // 16, rows)),
    }


def bitsandbytes_4bit(rows: int, columns: int) -> dict[str, Part]:
    state = "weight.quant_state.bitsandbytes__nf4"
    return {
        "weight": ("U8", (rows * columns // 2, 1)),
        "weight.absmax": ("F32", (rows * columns // 64,)),
        "weight.quant_map": ("F32", (16,)),
        state: ("U8", (60,)),
    }


def bitsandbytes_8bit(rows: int, columns: int) -> dict[str, Part]:
    return {"weight": ("I8", (rows, columns)), "SCB": ("F32", (rows,)), "weight_format": ("U8", ())}


def int4(rows: int, columns: int) -> dict[str, Part]:
    return {
        "weight_packed": ("I32", (rows, columns // 8)),
        "weight_scale": ("BF16", (rows, columns // 16)),
        "weight_shape": ("I64", (2,)),
    }


def int8(rows: int, columns: int) -> dict[str, Part]:
    return {"weight": ("I8", (rows, columns)), "weight_scale": ("BF16", (rows, 1))}


def nvfp4(rows: int, columns: int) -> dict[str, Part]:
    return {
        "weight_packed": ("U8", (rows, columns // 2)),
        "weight_scale": ("F8_E4M3", (rows, columns // 16)),
        "weight_global_scale": ("F32", (1,)),
        "input_global_scale": ("F32", (1,)),
    }


def mxfp4(rows: int, columns: int) -> dict[str, Part]:
    return {"weight_packed": ("U8", (rows, columns // 2)), "weight_scale": ("U8", (rows, columns // 32))}


def modelopt(rows: int, columns: int) -> dict[str, Part]:
    return {
        "weight": ("U8", (rows, columns // 2)),
        "weight_scale": ("F8_E4M3", (rows, columns // 16)),
        "weight_scale_2": ("F32", ()),
        "input_scale": ("F32", ()),
    }


def exl2(rows: int, columns: int) -> dict[str, Part]:
    return {
        "q_weight": ("I32", (columns // 8, rows)),
        "q_scale": ("I32", (2, rows // 8)),
        "q_perm": ("I32", (columns,)),
    }


def exl3(rows: int, columns: int) -> dict[str, Part]:
    return {"trellis": ("I32", (2, 2, 16)), "suh": ("F16", (columns,)), "svh": ("F16", (rows,))}


def hqq(rows: int, columns: int) -> dict[str, Part]:
    return {"W_q": ("U8", (rows * columns // 128, 64)), "scale": ("F16", (rows, 1)), "zero": ("F16", (rows, 1))}


def torchao(rows: int, columns: int) -> dict[str, Part]:
    return {"_weight_qdata": ("I8", (rows, columns)), "_weight_scale": ("F32", (rows, 1))}


def aqlm(rows: int, columns: int) -> dict[str, Part]:
    return {
        "codes": ("I8", (rows, columns // 8, 1)),
        "codebooks": ("F16", (1, 256, 1, 8)),
        "scales": ("F16", (rows, 1)),
    }


def mlx(rows: int, columns: int) -> dict[str, Part]:
    return {
        "weight": ("U32", (rows, columns // 8)),
        "scales": ("F16", (rows, columns // 32)),
        "biases": ("F16", (rows, columns // 32)),
    }


COMPRESSED = {"quant_method": "compressed-tensors"}
PACKINGS = {
    "GPTQ": Packing({"quant_method": "gptq", "bits": 4, "group_size": 16}, gptq, "GPTQ"),
    "GPTQ without a method": Packing({"bits": 4, "group_size": 16}, gptq, "GPTQ or AWQ"),
    "AWQ": Packing({"quant_method": "awq", "bits": 4}, awq, "AWQ"),
    "bitsandbytes 4-bit": Packing(
        {"quant_method": "bitsandbytes", "load_in_4bit": True}, bitsandbytes_4bit, "bits"
    ),
    "bitsandbytes 8-bit": Packing(
        {"quant_method": "bitsandbytes", "load_in_8bit": True}, bitsandbytes_8bit, "bits"
    ),
    "compressed-tensors int4": Packing({**COMPRESSED, "format": "pack-quantized"}, int4, "compressed-tensors"),
    "compressed-tensors int8": Packing({**COMPRESSED, "format": "int-quantized"}, int8, "compressed-tensors"),
    "compressed-tensors NVFP4": Packing(
        {**COMPRESSED, "format": "nvfp4-pack-quantized"}, nvfp4, "compressed-tensors"
    ),
    "compressed-tensors MXFP4": Packing(
        {**COMPRESSED, "format": "mxfp4-pack-quantized"}, mxfp4, "compressed-tensors"
    ),
    "ModelOpt NVFP4": Packing(
        {"quant_method": "modelopt", "quant_algo": "NVFP4"}, modelopt, "ModelOpt", loads=False
    ),
    "EXL2": Packing({"quant_method": "exl2", "bits": 4.0}, exl2, "EXL2", loads=False),
    "EXL3": Packing({"quant_method": "exl3", "bits": 4.0}, exl3, "EXL3", loads=False),
    "HQQ": Packing({"quant_method": "hqq"}, hqq, "HQQ"),
    "torchao": Packing({"quant_method": "torchao"}, torchao, "torchao"),
    "AQLM": Packing({"quant_method": "aqlm"}, aqlm, "AQLM"),
    "MLX": Packing({"group_size": 32, "bits": 4}, mlx, "MLX", loads=False, key="quantization"),
}
each = pytest.mark.parametrize("packing", PACKINGS.values(), ids=PACKINGS.keys())


def write_packed(root: Path, packing: Packing) -> Path:
    """A Llama whose projections are packed: random bytes, since nobody here reads them."""
    rng, stored = np.random.default_rng(0), {}
    for name, shape in llama_shapes().items():
        parts = packing.parts(*shape) if "_proj" in name else {"weight": ("F16", shape)}
        for part, (dtype, held) in parts.items():
            raw = rng.integers(0, 256, SIZES[dtype] * int(np.prod(held)), dtype=np.uint8).tobytes()
            stored[name.removesuffix("weight") + part] = (dtype, held, raw)
    root.mkdir()
    write_shard(root / "model.safetensors", stored)
    (root / "config.json").write_text(json.dumps(llama_config(**{packing.key: packing.quantisation})))
    return root


@each
def test_scoring_names_what_it_can_not_read_and_what_to_do(packing: Packing, run: Run, tmp_path: Path) -> None:
    source = write_packed(tmp_path / "m", packing)
    done = run("score", source)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert f"packed, quantised weights of {packing.named}" in done.stderr
    assert "give --layers, or --plan with the scores of the unquantised original" in done.stderr


@each
def test_named_layers_go_and_the_rest_stays_byte_for_byte(packing: Packing, tmp_path: Path) -> None:
    source, out = write_packed(tmp_path / "m", packing), tmp_path / "out"
    if not packing.loads:
        with pytest.raises(FormatError, match="prune the unquantised original, then quantise that"):
            gatenorm_stream.plan(source, layers=DROPPED)
        return
    plan = gatenorm_stream.plan(source, layers=DROPPED)
    assert (plan.format, plan.dropped, plan.scored) == ("transformers", DROPPED, False)
    gatenorm_stream.prune(plan, out)
    before, after = read_tensors(source), read_tensors(out)
    gone = {name for name in before if name.startswith(("model.layers.2.self_attn.", "model.layers.2.input_"))}
    assert len(gone) > 5
    assert after == {name: tensor for name, tensor in before.items() if name not in gone}
    config = json.loads((out / "config.json").read_text())
    assert config[packing.key] == packing.quantisation
    gatenorm_stream.verify(out, against=source)
    again = tmp_path / "again"
    gatenorm_stream.prune(gatenorm_stream.read_plan(out / "gatenorm.json"), again)
    assert (again / "gatenorm.json").read_bytes() == (out / "gatenorm.json").read_bytes()


@pytest.mark.parametrize("name", ["GPTQ", "bitsandbytes 4-bit", "compressed-tensors int4"])
def test_a_plan_of_the_original(name: str, run: Run, tmp_path: Path) -> None:
    """Its scores stay on record as those of the original, and its format gives way to one that can be."""
    original = write_checkpoint(tmp_path / "original", random_tensors(llama_shapes()), llama_config())
    source, out, saved = write_packed(tmp_path / "m", PACKINGS[name]), tmp_path / "out", tmp_path / "plan.json"
    plan = gatenorm_stream.plan(original, drop=1)
    assert plan.format == "no-op"
    saved.write_text(json.dumps(plan.to_json()))
    done = run(source, "--out", out, "--plan", saved)
    assert done.returncode == 0, done.stderr
    assert f"scores of {original}" in " ".join(done.stdout.split())
    assert "format transformers: runs in transformers" in done.stdout
    held = gatenorm_stream.read_plan(out / "gatenorm.json")
    assert (held.scores, held.dropped, held.format) == (plan.scores, plan.dropped, "transformers")
    assert (held.source, held.scores_of) == (str(source), str(original))
    assert str(original) in " ".join(run("explain", out).stdout.split())
    gatenorm_stream.verify(out, against=source)


def test_a_plan_of_the_original_with_constants(tmp_path: Path) -> None:
    original = write_checkpoint(tmp_path / "original", random_tensors(llama_shapes()), llama_config())
    source, out = write_packed(tmp_path / "m", PACKINGS["GPTQ"]), tmp_path / "out"
    saved = gatenorm_stream.plan(original, drop=1).to_json()
    saved["constants"] = constants_as_text({saved["dropped"][0]: np.arange(32, dtype="<f4").tobytes()})
    (tmp_path / "plan.json").write_text(json.dumps(saved))
    gatenorm_stream.prune(gatenorm_stream.read_plan(tmp_path / "plan.json"), out, source=source)
    name = f"model.layers.{saved['dropped'][0]}.self_attn.constant"
    assert read_tensors(out)[name][:2] == ("BF16", (32,))
    gatenorm_stream.verify(out, against=source)


def test_what_needs_numbers_says_so(run: Run, tmp_path: Path) -> None:
    source = write_packed(tmp_path / "m", PACKINGS["GPTQ"])
    for arguments in (
        ("measure", source),
        (source, "--dry-run", "--layers", "2", "--compensate"),
        (source, "--dry-run", "--by", "influence"),
        (source, "--dry-run", "--max-rise", "0.1"),
        (source, "--dry-run"),
        (source, "--dry-run", "--layers", "2", "--format", "zeroed"),
        (source, "--dry-run", "--layers", "2", "--format", "no-op"),
        ("compare", source, "--other-reading", "stored"),
    ):
        done = run(*arguments)
        assert done.returncode == 1, arguments
        assert len(done.stderr.splitlines()) == 1
        assert "Traceback" not in done.stderr
        assert "GPTQ" in done.stderr or "packed" in done.stderr or "quantization_config" in done.stderr


@pytest.mark.parametrize(
    ("name", "cautioned"),
    [("GPTQ", False), ("compressed-tensors int4", False), ("compressed-tensors int8", True)],
)
def test_what_was_not_run_is_cautioned_of(name: str, cautioned: bool, tmp_path: Path) -> None:
    plan = gatenorm_stream.plan(write_packed(tmp_path / "m", PACKINGS[name]), layers=[2])
    with open_model(open_source(tmp_path / "m")) as model:
        cautions = decide_again(plan, model).form.cautions
    assert any("was not tried pruned" in line for line in cautions) == cautioned


def test_the_card_and_explain_say_that_nothing_was_scored(run: Run, tmp_path: Path) -> None:
    source, out = write_packed(tmp_path / "m", PACKINGS["AQLM"]), tmp_path / "out"
    done = run(source, "--out", out, "--layers", "2")
    assert done.returncode == 0, done.stderr
    assert "not scored: the weights are packed" in " ".join(done.stdout.split())
    assert "quant_method=aqlm was not tried pruned" in " ".join(done.stdout.split())
    assert "rank" not in done.stdout
    assert not (out / "gatenorm.svg").exists()
    card = (out / "README.md").read_text()
    assert "## Scores" not in card
    assert "![" not in card
    explained = run("explain", out).stdout
    assert "rank" not in explained
    assert "--layers 2" in explained
    assert "influence" not in explained


# GGUF


def with_types(path: Path, content: gguf_files.Tensors, types: Mapping[str, int], **options: Any) -> Path:
    """Writes the tensors of `types` as raw bytes of these types, whatever they are: 18 bytes for 128 numbers."""
    rng, content = np.random.default_rng(0), dict(content)
    for name in types:
        rows, columns = content[name][0].shape
        raw = rng.integers(0, 256, (rows, 36), dtype=np.uint8)  # as Q8_0 of one block and two bytes more
        content[name] = (np.frombuffer(raw.tobytes() + bytes(0), np.uint8).reshape(rows, 36), "NVFP4")
        assert columns == 256
    path = gguf_files.write_gguf(path, {n: (r, t) for n, (r, t) in content.items()}, **options)
    data = bytearray(path.read_bytes())
    for name, number in types.items():
        at = data.index(struct.pack("<Q", len(name)) + name.encode()) + 8 + len(name)
        (dimensions,) = struct.unpack_from("<I", data, at)
        at += 4
        struct.pack_into("<Q", data, at, 256)  # NVFP4 of 36 bytes a row is 64 numbers
        struct.pack_into("<I", data, at + 8 * dimensions, number)
    path.write_bytes(data)
    return path


def attention(*parts: str) -> list[str]:
    return [f"blk.{n}.attn_{part}.weight" for n in range(4) for part in parts]


TYPES = {
    "Q1_0 in q and k": (attention("q", "k"), 41),
    "Q1_0 everywhere": ([*attention("q", "k", "v", "output"), *(f"blk.{n}.ffn_up.weight" for n in range(4))], 41),
    "a type of tomorrow": (attention("q", "k"), 42),
    "a type of a fork": (attention("q", "k", "v"), 137),
    "the last tensor too": ([*attention("q", "k"), "output.weight"], 144),
    "a huge number": (attention("q", "k"), 2**32 - 1),
    "one layer alone": (["blk.1.attn_k.weight"], 97),
    "values of what goes": (["blk.1.attn_q.weight", "blk.2.attn_q.weight"], 36),
}


@pytest.mark.parametrize(("names", "number"), TYPES.values(), ids=TYPES.keys())
def test_types_that_nobody_dequantises(names: list[str], number: int, run: Run, tmp_path: Path) -> None:
    content = gguf_files.tensors(gguf_files.shapes())
    options = {"rope__dimension_count": gguf_files.HEAD_DIM}
    source = with_types(tmp_path / "m.gguf", content, dict.fromkeys(names, number), **options)
    called = "Q1_0" if number == 41 else f"type {number}"
    done = run("score", source)
    assert done.returncode == 1
    assert f"is stored as {called}, which the gguf package does not dequantise; give --layers" in done.stderr
    out = tmp_path / "out.gguf"
    assert run(source, "--out", out, "--layers", "2").returncode == 0
    before, after = raw_tensors(source), raw_tensors(out)
    gone = {name for name in before if name.startswith("blk.2.attn_")}
    assert after == {name: tensor for name, tensor in before.items() if name not in gone}
    gatenorm_stream.verify(out, against=source)


def raw_tensors(path: Path) -> dict[str, tuple[int, tuple[int, ...], bytes]]:
    """(type, dimensions, bytes up to the next tensor without the zeros that align) of each, by hand."""
    data, at = path.read_bytes(), 24
    tensors, values = struct.unpack_from("<QQ", data, 8)

    def text() -> str:
        nonlocal at
        (length,) = struct.unpack_from("<Q", data, at)
        at += 8 + length
        return data[at - length : at].decode()

    widths = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}

    def skip(kind: int) -> None:
        nonlocal at
        if kind == 8:
            text()
        elif kind == 9:
            inner, count = struct.unpack_from("<IQ", data, at)
            at += 12
            for _ in range(count):
                skip(inner)
        else:
            at += widths[kind]

    for _ in range(values):
        text()
        (kind,) = struct.unpack_from("<I", data, at)
        at += 4
        skip(kind)
    found = []
    for _ in range(tensors):
        name = text()
        (dimensions,) = struct.unpack_from("<I", data, at)
        shape = struct.unpack_from(f"<{dimensions}Q", data, at + 4)
        number, start = struct.unpack_from("<IQ", data, at + 4 + 8 * dimensions)
        at += 4 + 8 * dimensions + 12
        found.append((name, number, shape, start))
    begin = -(-at // 32) * 32
    ends = [start for *_, start in found[1:]] + [len(data) - begin]
    return {
        name: (number, shape, data[begin + start : begin + end].rstrip(b"\0"))
        for (name, number, shape, start), end in zip(found, ends, strict=True)
    }


@pytest.mark.parametrize(
    ("architecture", "options", "says"),
    [
        ("qwen2", ("--format", "no-op"), "where they end is not known"),
        ("llama", ("--format", "zeroed"), "a type that is not known, and so are its zeros"),
        ("llama", ("--compensate",), "does not dequantise"),
        ("llama", ("--by", "influence"), "does not dequantise"),
    ],
)
def test_what_unknown_types_stop(architecture: str, options: Any, says: str, run: Run, tmp_path: Path) -> None:
    content = gguf_files.tensors(gguf_files.shapes())
    given = {"architecture": architecture, "rope__dimension_count": gguf_files.HEAD_DIM}
    names = dict.fromkeys(attention("q", "k", "output"), 137)
    source = with_types(tmp_path / "m.gguf", content, names, **given)
    layers = () if "influence" in options else ("--layers", "2")
    done = run(source, "--dry-run", *layers, *options)
    assert done.returncode == 1
    assert says in done.stderr


def test_an_unknown_type_takes_no_more_than_there_is(tmp_path: Path) -> None:
    content = gguf_files.tensors(gguf_files.shapes(1))
    path = with_types(tmp_path / "m.gguf", content, {"output.weight": 137})
    data = path.read_bytes()
    path.write_bytes(data[: -48 * 36])
    with pytest.raises(HeaderError, match="would take 0 bytes"):
        gatenorm_stream.score(path)


def test_a_plan_of_the_original_fits_a_gguf_of_an_unknown_type(run: Run, tmp_path: Path) -> None:
    content = gguf_files.tensors(gguf_files.shapes())
    options: dict[str, Any] = {"rope__dimension_count": gguf_files.HEAD_DIM}
    original = gguf_files.write_gguf(tmp_path / "original.gguf", content, **options)
    source = with_types(tmp_path / "m.gguf", content, dict.fromkeys(attention("q", "k"), 42), **options)
    (tmp_path / "plan.json").write_text(json.dumps(gatenorm_stream.plan(original, drop=1).to_json()))
    out = tmp_path / "out.gguf"
    done = run(source, "--out", out, "--plan", tmp_path / "plan.json")
    assert done.returncode == 0, done.stderr
    gatenorm_stream.verify(out, against=source)
    assert gatenorm_stream.read_plan(tmp_path / "out.gatenorm.json").scores_of == str(original)


def test_errors_of_packed_weights_are_of_the_known_kinds(tmp_path: Path) -> None:
    """Half a module is damage, and not packed."""
    source = write_packed(tmp_path / "m", PACKINGS["GPTQ"])
    with pytest.raises(UnsupportedModelError):
        gatenorm_stream.score(source)
    stored = {n: t for n, t in read_tensors(source).items() if "layers.1.self_attn.k_proj" not in n}
    write_shard(source / "model.safetensors", stored)
    with pytest.raises(CheckpointError, match=r"has no model.layers.1.self_attn.k_proj.weight"):
        gatenorm_stream.plan(source, layers=DROPPED)
