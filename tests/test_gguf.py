"""GGUF files: their header, their scores, and what pruning makes of them, read by the `gguf` package."""

from __future__ import annotations

import json
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
from hypothesis import example, given
from hypothesis import strategies as st

import gatenorm_stream
from gatenorm_stream.blocks import KINDS
from gatenorm_stream.checkpoint.gguf_header import IncompleteError, alignment, build_header, parse_header
from gatenorm_stream.checkpoint.gguf_types import QUANTISED, TYPES
from gatenorm_stream.checkpoint.tensors import with_offsets
from gatenorm_stream.errors import CheckpointError, HeaderError, PlanError, VerificationError
from gatenorm_stream.floats import dequantise, widen_into
from gatenorm_stream.planning.plan import plan_from_json
from gatenorm_stream.writing.record import FileDigest, render_record
from tests import gguf_files
from tests.conftest import Run
from tests.gguf_files import HEAD_DIM, HEADS, KV_HEADS, numbers, read, shapes, tensors, write_gguf

LEAST = {2: 0.1, 3: 0.2}
"""Gains that make the layers 2 and 3 the least coupled."""


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of four layers in Q8_0."""
    path = tmp_path_factory.mktemp("gguf") / "model.gguf"
    return write_gguf(path, tensors(shapes(), "Q8_0", gain=LEAST), rope__dimension_count=HEAD_DIM)


@pytest.fixture
def pruned(model: Path, tmp_path: Path) -> Path:
    out = tmp_path / "pruned.gguf"
    gatenorm_stream.prune(gatenorm_stream.plan(model, drop=2), out)
    return out


def brute_force(content: gguf_files.Tensors, layer: int) -> float:
    q, k = (numbers(content[f"blk.{layer}.attn_{part}.weight"]).astype(np.float64) for part in "qk")
    total = 0.0
    for head in range(HEADS):
        group = head * KV_HEADS // HEADS
        mine, theirs = q[head * HEAD_DIM : (head + 1) * HEAD_DIM], k[group * HEAD_DIM : (group + 1) * HEAD_DIM]
        total += float(np.sum((mine.T @ theirs) ** 2))
    return total**0.5


def test_the_types_are_those_of_ggml() -> None:
    for number, stored in TYPES.items():
        kind = GGMLQuantizationType(number)
        assert (kind.name, GGML_QUANT_SIZES[kind]) == (stored.name, (stored.elements, stored.bytes))


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "TQ1_0", "MXFP4"])
def test_scores(dtype: str, tmp_path: Path) -> None:
    content = tensors(shapes(2), dtype)
    scores = gatenorm_stream.score(write_gguf(tmp_path / "m.gguf", content))
    expected = [brute_force(content, n) for n in range(2)]
    assert [s.score for s in scores] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("dtype", sorted(QUANTISED))
def test_zero_bytes_are_zero_numbers(dtype: str) -> None:
    stored = next(t for t in TYPES.values() if t.name == dtype)
    assert not dequantise(np.zeros((3, 2 * stored.bytes), np.uint8), dtype).any()


@pytest.mark.parametrize("dtype", sorted(KINDS))
@given(count=st.integers(1, 40), across=st.integers(1, 3), seed=st.integers(0, 2**32 - 1))
@example(count=500, across=3, seed=0)
def test_blocks_are_widened_to_the_bits_of_the_gguf_package(dtype: str, count: int, across: int, seed: int) -> None:
    """Infinite scales included. A row ends before the next begins, as in the memory that blocks are widened in."""
    stored = next(t for t in TYPES.values() if t.name == dtype)
    rows = np.random.default_rng(seed).integers(0, 256, (count, across * stored.bytes), dtype=np.uint8)
    columns = across * stored.elements
    expected, out = dequantise(rows, dtype), np.empty((count, columns + 4), np.float32)[:, :columns]
    widen_into(out, rows, dtype)
    finite = np.isfinite(expected)
    assert count < 500 or not finite.all()
    np.testing.assert_array_equal(out, expected)
    np.testing.assert_array_equal(out.view(np.int32)[finite], expected.view(np.int32)[finite])


def test_the_sizes_of_blocks_are_those_of_ggml() -> None:
    assert {name: size for name, (size, _) in KINDS.items()} == {
        stored.name: stored.bytes for stored in TYPES.values() if stored.name in KINDS
    }


@pytest.mark.parametrize("dtype", ["Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_XS", "IQ2_XXS"])
def test_scores_of_k_quants(dtype: str, tmp_path: Path) -> None:
    """Their blocks are any bytes with finite scales; the package can't make them, but read them."""
    content, rng = dict(tensors(shapes(1))), np.random.default_rng(1)
    size = GGML_QUANT_SIZES[GGMLQuantizationType[dtype]][1]
    for part in "qk":
        name = f"blk.0.attn_{part}.weight"
        rows = rng.integers(0, 256, (content[name][0].shape[0], size), dtype=np.uint8)
        while not np.isfinite(found := dequantise(rows, dtype)).all():
            bad = ~np.isfinite(found).all(axis=1)
            rows[bad] = rng.integers(0, 256, (int(bad.sum()), size), dtype=np.uint8)
        content[name] = (rows, dtype)
    (score,) = gatenorm_stream.score(write_gguf(tmp_path / "m.gguf", content))
    assert score.score == pytest.approx(brute_force(content, 0), rel=1e-5)


def test_fused_projections(tmp_path: Path) -> None:
    content = tensors(shapes(2))
    fused = dict(content)
    for n in range(2):
        parts = [fused.pop(f"blk.{n}.attn_{part}.weight")[0] for part in "qkv"]
        fused[f"blk.{n}.attn_qkv.weight"] = (np.concatenate(parts), "F32")
    a, b = write_gguf(tmp_path / "a.gguf", content), write_gguf(tmp_path / "b.gguf", fused, "phi3")
    assert gatenorm_stream.score(b) == gatenorm_stream.score(a)


def test_layers_with_other_mixers_are_no_candidates(tmp_path: Path) -> None:
    content = dict(tensors(shapes(3)))
    content["blk.1.ssm_in.weight"] = content["blk.1.attn_q.weight"]
    kv = [KV_HEADS, KV_HEADS, 0]
    path = write_gguf(tmp_path / "m.gguf", content, "granitehybrid", attention__head_count_kv=kv)
    assert [s.layer for s in gatenorm_stream.score(path)] == [0]


def test_inf_in_a_scale_is_named(model: Path, tmp_path: Path, run: Run) -> None:
    content = dict(tensors(shapes(), "Q8_0"))
    raw = content["blk.2.attn_k.weight"][0].copy()
    raw[5, :2] = np.frombuffer(np.float16(np.inf).tobytes(), np.uint8)
    content["blk.2.attn_k.weight"] = (raw, "Q8_0")
    done = run("score", write_gguf(tmp_path / "m.gguf", content))
    assert done.returncode == 1
    assert "blk.2.attn_k.weight" in done.stderr
    assert "inf or nan" in done.stderr


def test_what_pruning_changes(run: Run, model: Path, tmp_path: Path) -> None:
    out = tmp_path / "pruned.gguf"
    done = run(model, "--out", out)
    assert done.returncode == 0, done.stderr
    assert "format no-op: runs in llama.cpp" in done.stdout
    before, held_before = read(model)
    after, held = read(out)
    gone = {name for name in held_before if name.startswith("blk.2.attn_")}
    assert len(gone) == 5
    assert held == {name: t for name, t in held_before.items() if name not in gone}
    own = {key for key in before if key.startswith("llama.")}
    unchanged = before.keys() - own - {"general.architecture"}
    assert {key: after[key] for key in unchanged} == {key: before[key] for key in unchanged}
    assert {key for key in after if key.startswith("deci.")} == {key.replace("llama.", "deci.") for key in own}
    assert heads(out) == [4, 4, 0, 4]
    assert heads(out, "head_count_kv") == [2, 2, 0, 2]
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "pruned.gatenorm.json",
        "pruned.gatenorm.md",
        "pruned.gguf",
    ]
    assert gatenorm_stream.verify(out, against=model).tensors == len(held)


def heads(path: Path, key: str = "head_count") -> list[int]:
    raw = read(path)[0][f"deci.attention.{key}"][1]
    return np.frombuffer(raw[-16:], "<i4").tolist()


def test_zeroed(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "zeroed.gguf"
    gatenorm_stream.prune(gatenorm_stream.plan(model, drop=2, format="zeroed"), out)
    (before, held_before), (after, held) = read(model), read(out)
    assert before == after
    zeroed = {f"blk.{n}.attn_output.weight" for n in (2, 3)}
    assert {name for name in held if held[name] != held_before[name]} == zeroed
    assert not any(any(held[name][2]) for name in zeroed)
    gatenorm_stream.verify(out, against=model)


def test_halves_of_qwen2_become_pairs(tmp_path: Path) -> None:
    content = tensors(shapes(bias=True), "Q4_0", gain=LEAST)
    model, out = write_gguf(tmp_path / "qwen.gguf", content, "qwen2"), tmp_path / "out.gguf"
    gatenorm_stream.prune(gatenorm_stream.plan(model, layers=[3]), out)
    _, held = read(out)
    for name, (raw, dtype) in content.items():
        if name.startswith("blk.3.attn_"):
            assert name not in held
            continue
        rows = raw.reshape(raw.shape[0], -1)
        if ".attn_q." in name or ".attn_k." in name:
            pairs = [rows[h + i + half] for h in range(0, len(rows), 64) for i in range(32) for half in (0, 32)]
            rows = np.array(pairs)
        assert held[name][1:] == (dtype, rows.tobytes())
    assert gatenorm_stream.verify(out, against=model).against == str(model)


def test_the_order_of_rows_within_heads_does_not_matter(tmp_path: Path) -> None:
    """llama.cpp's converter reorders them for some architectures, so that RoPE rotates neighbours."""
    content = tensors(shapes(2), "Q8_0")
    order = np.random.default_rng(2).permutation(HEAD_DIM)
    mixed = dict(content)
    for name, (raw, dtype) in content.items():
        if ".attn_q." in name or ".attn_k." in name:
            mixed[name] = (raw.reshape(-1, HEAD_DIM, raw.shape[1])[:, order].reshape(raw.shape), dtype)
    one, other = (
        gatenorm_stream.score(write_gguf(tmp_path / f"{n}.gguf", c)) for n, c in enumerate((content, mixed))
    )
    assert [s.score for s in one] == pytest.approx([s.score for s in other], rel=1e-6)


def test_split_files_become_one(run: Run, model: Path, tmp_path: Path) -> None:
    content = tensors(shapes(), "Q8_0", gain=LEAST)
    first = write_gguf(tmp_path / "split", content, split=9, rope__dimension_count=HEAD_DIM)
    assert len(list(tmp_path.glob("split-0*"))) == 5
    assert gatenorm_stream.score(first) == gatenorm_stream.score(model)
    last = tmp_path / "split-00005-of-00005.gguf"
    done = run(last, "--out", tmp_path / "out.gguf")
    assert done.returncode == 0, done.stderr
    _, held = read(tmp_path / "out.gguf")
    assert held.keys() == {name for name in content if not name.startswith("blk.2.attn_")}
    assert not any(key.startswith("split.") for key in read(tmp_path / "out.gguf")[0])
    gatenorm_stream.verify(tmp_path / "out.gguf", against=first)
    (tmp_path / "split-00003-of-00005.gguf").rename(tmp_path / "x.gguf")
    assert "split-00003-of-00005.gguf is not there" in run("score", first).stderr
    shutil.copy(last, tmp_path / "split-00003-of-00005.gguf")
    assert "part 4 (from 0 on) of 5" in run("score", first).stderr


@pytest.mark.parametrize("alignment", [None, 8, 256])
def test_tensors_are_aligned(alignment: int | None, tmp_path: Path) -> None:
    content = dict(tensors(shapes(), "Q4_0", gain=LEAST))
    content["rope_freqs.weight"] = (np.ones(5, np.float32), "F32")
    model = write_gguf(tmp_path / "m.gguf", content, alignment=alignment)
    gatenorm_stream.prune(gatenorm_stream.plan(model, layers=[1, 2]), tmp_path / "out.gguf")
    data = (tmp_path / "out.gguf").read_bytes()
    found = parse_header(data, len(data), "out")
    assert found.header.data_start % (alignment or 32) == 0
    assert all(t.data.start % (alignment or 32) == 0 for t in found.header.tensors)
    gatenorm_stream.verify(tmp_path / "out.gguf", against=model)


@pytest.mark.parametrize(
    ("architecture", "change", "says"),
    [
        ("gemma2", {}, "general.architecture=gemma2 stands in the way"),
        ("llama", {"blk.1.attn_q_norm.weight": (64,)}, "blk.1.attn_q_norm.weight stands in the way"),
        ("llama", {"rope__dimension_count": 32}, "llama.rope.dimension_count=32 stands in the way"),
    ],
)
def test_what_deci_cannot_express(architecture: str, change: dict, says: str, run: Run, tmp_path: Path) -> None:
    extra = {name: shape for name, shape in change.items() if isinstance(shape, tuple)}
    keys = {name: value for name, value in change.items() if name not in extra}
    model = write_gguf(tmp_path / "m.gguf", tensors({**shapes(), **extra}), architecture, **keys)
    refused = run(model, "--out", "out.gguf", "--format", "no-op")
    assert refused.returncode == 1
    assert says in refused.stderr
    assert "--format zeroed" in refused.stderr
    done = run(model, "--out", "out.gguf")
    assert done.returncode == 0, done.stderr
    assert "format zeroed: runs in llama.cpp" in done.stdout


def test_layer_0_needs_its_attention(run: Run, model: Path) -> None:
    refused = run(model, "--out", "out.gguf", "--layers", "0", "--format", "no-op")
    assert "layer 0 stands in the way" in refused.stderr


def test_other_engines_are_refused(run: Run, model: Path) -> None:
    refused = run(model, "--out", "out.gguf", "--engine", "vllm")
    assert refused.returncode == 1
    assert "prune the model's safetensors form for that" in refused.stderr
    assert "no format transformers" in run(model, "--out", "out.gguf", "--format", "transformers").stderr


@pytest.mark.slow
def test_places_for_the_output(run: Run, model: Path, llama: Path, tmp_path: Path) -> None:
    def refusal(*args: object) -> str:
        done = run(*args)
        assert done.returncode == 1
        return done.stderr

    assert "becomes one file" in refusal(model, "--out", "directory")
    assert "becomes a directory" in refusal(llama, "--out", "out.gguf")
    assert "is the source" in refusal(model, "--out", model, "--force")
    (tmp_path / "taken.gguf").write_text("something")
    assert "exists; choose another name, or --force" in refusal(model, "--out", "taken.gguf")
    assert "was not written by gatenorm-stream" in refusal(model, "--out", "taken.gguf", "--force")
    assert (tmp_path / "taken.gguf").read_text() == "something"
    assert "is not there" in refusal("score", "absent.gguf")
    assert "was pruned by gatenorm-stream already" in refusal(pruned_once(model, tmp_path))


def pruned_once(model: Path, tmp_path: Path) -> Path:
    gatenorm_stream.prune(gatenorm_stream.plan(model, drop=1), tmp_path / "once.gguf")
    return tmp_path / "once.gguf"


@pytest.mark.slow
def test_an_earlier_output_is_replaced(run: Run, model: Path, tmp_path: Path) -> None:
    for layers, expected in [("3", [4, 4, 4, 0]), ("2", [4, 4, 0, 4])]:
        done = run(model, "--out", "out.gguf", "--layers", layers, "--force")
        assert done.returncode == 0, done.stderr
        assert heads(tmp_path / "out.gguf") == expected
        assert run("verify", "out.gguf", "--against", model).returncode == 0


def test_a_run_that_was_cut_off_goes_on(model: Path, tmp_path: Path) -> None:
    def stop_while_writing(what: str, done: int, total: int, file: str) -> None:
        if what == "writing" and done > total // 2:
            raise KeyboardInterrupt

    plan, out = gatenorm_stream.plan(model, drop=2), tmp_path / "out.gguf"
    with pytest.raises(KeyboardInterrupt):
        gatenorm_stream.prune(plan, out, progress=stop_while_writing)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.gguf.partial"]
    gatenorm_stream.prune(plan, out)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.gatenorm.json", "out.gatenorm.md", "out.gguf"]
    gatenorm_stream.verify(out, against=model)


def test_a_plan_is_repeated(run: Run, pruned: Path, model: Path, llama: Path, tmp_path: Path) -> None:
    done = run(model, "--out", "again.gguf", "--plan", pruned.with_suffix(".gatenorm.json"))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "again.gguf").read_bytes() == pruned.read_bytes()
    with pytest.raises(PlanError, match="was made for a gguf/llama"):
        gatenorm_stream.prune(gatenorm_stream.plan(model, drop=2), tmp_path / "x", source=llama)


def damaged_at(path: Path, position: int) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 0x10
    path.write_bytes(data)


@pytest.mark.slow
def test_any_damage_is_found_and_named(pruned: Path) -> None:
    whole = pruned.read_bytes()
    header = parse_header(whole, len(whole), "pruned").header
    for t in header.tensors[::7]:
        damaged_at(pruned, header.data_start + t.data.start + len(t.data) // 2)
        with pytest.raises(VerificationError, match=rf"its BLAKE3 digest differs, first in {t.name}"):
            gatenorm_stream.verify(pruned)
        pruned.write_bytes(whole)
    rng = np.random.default_rng(0)
    for position in rng.integers(0, header.data_start, 60):
        damaged_at(pruned, int(position))
        with pytest.raises(VerificationError, match="header|bytes long"):
            gatenorm_stream.verify(pruned)
        pruned.write_bytes(whole)
    for position in rng.integers(0, len(whole), 60):
        damaged_at(pruned, int(position))
        with pytest.raises(VerificationError):
            gatenorm_stream.verify(pruned)
        pruned.write_bytes(whole)


def test_lies_with_a_fitting_record_are_found(pruned: Path, model: Path, tmp_path: Path) -> None:
    """A record can be made for any file; the plan in it and the source tell."""
    record = pruned.with_suffix(".gatenorm.json")
    other = tmp_path / "other.gguf"
    gatenorm_stream.prune(gatenorm_stream.plan(model, layers=[3]), other)
    said = json.loads(record.read_text())
    lying = json.loads(other.with_suffix(".gatenorm.json").read_text())
    lying["dropped"] = said["dropped"]
    digests = {
        name: FileDigest(f["size"], f["blake3"], tuple(f.get("marks", "").split()))
        for name, f in lying["files"].items()
    }
    text = render_record(plan_from_json(lying, "x"), digests)
    other.with_suffix(".gatenorm.json").write_text(text)
    with pytest.raises(VerificationError, match=r"layer \d has (no )?attention tensors, against the plan"):
        gatenorm_stream.verify(other)
    changed = tmp_path / "changed.gguf"
    content = tensors(shapes(), "Q8_0", seed=1, gain=LEAST)
    write_gguf(changed, content, rope__dimension_count=HEAD_DIM)
    with pytest.raises(VerificationError, match="differs from the source"):
        gatenorm_stream.verify(pruned, against=changed)


def test_the_card_beside_it(pruned: Path, model: Path) -> None:
    card = pruned.with_suffix(".gatenorm.md")
    text = card.read_text("utf-8")
    assert f"# {model.name}, 2 of 4 attention sublayers removed" in text
    assert "llama-server -m pruned.gguf" in text
    assert str(model.parent) not in text
    card.write_text(text.replace("removed", "zeroed"), "utf-8")
    with pytest.raises(VerificationError, match=r"pruned.gatenorm.md (was changed|is \d+ bytes)"):
        gatenorm_stream.verify(pruned)


def test_a_file_without_its_record(pruned: Path) -> None:
    pruned.with_suffix(".gatenorm.json").rename(pruned.with_name("elsewhere"))
    with pytest.raises(VerificationError, match=r"there is no pruned.gatenorm.json"):
        gatenorm_stream.verify(pruned)


HEAD = b"GGUF" + struct.pack("<I", 3)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "is empty"),
        (b"GGML" + bytes(40), "begins with b'GGML'"),
        (b"GGUF" + struct.pack(">I", 3) + bytes(40), "big-endian"),
        (b"GGUF" + struct.pack("<I", 1) + bytes(40), "of version 1"),
        (HEAD + struct.pack("<QQ", 1 << 60, 0), "ends within its header"),
        (HEAD + struct.pack("<QQ", 0, 1 << 60), "ends within its header"),
        (HEAD + struct.pack("<QQQ", 0, 1, 1 << 60), "name in it is"),
        (HEAD + struct.pack("<QQQ1sI", 0, 1, 1, b"k", 99), "unknown kind 99"),
        (HEAD + struct.pack("<QQQ1sIIQ", 0, 1, 1, b"k", 9, 4, 1 << 62), "ends within its header"),
        (HEAD + struct.pack("<QQQ1sIIQ", 0, 1, 1, b"k", 9, 9, 1), "array of values of the kind 9"),
        (HEAD + struct.pack("<QQQ1sIIIQ", 1, 0, 1, b"t", 1, 32, 2, 0), "ends within its header"),
    ],
)
def test_hostile_headers(data: bytes, says: str, tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(data)
    with pytest.raises(HeaderError, match=says):
        gatenorm_stream.score(path)


@given(st.data())
def test_changed_headers_never_surprise(model: Path, draw: st.DataObject) -> None:
    data = model.read_bytes()
    length = parse_header(data, len(data), "m").header.data_start
    changed = bytearray(data[:length])
    for _ in range(draw.draw(st.integers(1, 4))):
        at = draw.draw(st.integers(0, length - 1))
        changed[at] = draw.draw(st.integers(0, 255))
    try:
        found = parse_header(bytes(changed), len(data), "m")
    except (HeaderError, IncompleteError):
        return
    assert found.header.data_start <= length + 64
    assert all(t.data.stop + found.header.data_start <= len(data) for t in found.header.tensors)


def test_a_header_that_was_read_is_built_the_same(model: Path) -> None:
    data = model.read_bytes()
    found = parse_header(data, len(data), "m")
    tensors = with_offsets(found.header.tensors, alignment(found.metadata))
    assert tensors == found.header.tensors
    assert build_header(found.metadata, tensors) == data[: found.header.data_start]


def test_a_directory_of_gguf_files_is_explained(model: Path, run: Run) -> None:
    done = run("score", model.parent)
    assert done.returncode == 1
    assert f"give one of its GGUF files: {model}" in done.stderr


def test_contradictions_are_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"blk.0.attn_q.weight in .* has shape \[256, 256\]"):
        gatenorm_stream.score(write_gguf(tmp_path / "m.gguf", tensors(shapes()), attention__head_count=6))
    with pytest.raises(CheckpointError, match="block_count=99"):
        gatenorm_stream.score(write_gguf(tmp_path / "n.gguf", tensors(shapes()), block_count=99))
