"""Scores of checkpoints on disk, read through every dtype, shard and order, against brute force."""

from __future__ import annotations

import math
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gatenorm_stream
from gatenorm_stream.checkpoint.safetensors import open_checkpoint
from gatenorm_stream.checkpoint.tensors import Tensor
from gatenorm_stream.errors import CheckpointError
from gatenorm_stream.families.heads import Heads
from gatenorm_stream.families.model import Model, read_model
from gatenorm_stream.floats import FROM_HALF, widen, widen_into, widen_pairs
from gatenorm_stream.scoring.readings import READINGS, Reading
from gatenorm_stream.scoring.score import scored
from gatenorm_stream.sources.local import LocalSource
from gatenorm_stream.sources.local_file import LocalFile
from gatenorm_stream.sources.ranges import ByteRange
from tests.checkpoints import (
    HEAD_DIM,
    HEADS,
    KV_HEADS,
    LAYERS,
    decode,
    encode,
    llama_config,
    llama_shapes,
    random_tensors,
    write_checkpoint,
)
from tests.test_gate_norm import brute_force

HEADS_ = Heads(HEADS, KV_HEADS, HEAD_DIM)


def name(layer: int, part: str) -> str:
    return f"model.layers.{layer}.self_attn.{part}_proj.weight"


NAMES = [name(layer, part) for layer in range(LAYERS) for part in "qk"]


def queries_and_keys(model: Model) -> list[Tensor]:
    return [model.checkpoint.tensors[name] for name in NAMES]


def expected(tensors: dict[str, np.ndarray], dtypes: dict[str, str], layer: int) -> dict[str, float]:
    q, k = (
        decode(encode(tensors[t], dtypes[t]), dtypes[t], tensors[t].shape) for t in (name(layer, p) for p in "qk")
    )
    return brute_force(q, k, HEADS_)


@settings(max_examples=10)
@given(
    seed=st.integers(0, 2**32),
    shards=st.integers(1, 5),
    dtypes=st.lists(st.sampled_from(["F64", "F32", "F16", "BF16"]), min_size=2 * LAYERS, max_size=2 * LAYERS),
    threads=st.integers(1, 4),
)
def test_any_dtype_shard_and_order(seed: int, shards: int, dtypes: list[str], threads: int) -> None:
    tensors = random_tensors(llama_shapes(), seed)
    chosen = dict(zip(NAMES, dtypes, strict=True))
    with tempfile.TemporaryDirectory() as folder:
        root = write_checkpoint(
            Path(folder) / "m", tensors, llama_config(), shards=shards, dtypes=chosen, seed=seed
        )
        for reading in READINGS:
            scores = gatenorm_stream.score(root, reading=reading, threads=threads)
            for s in scores:
                assert s.score == pytest.approx(expected(tensors, chosen, s.layer)[reading], rel=1e-5)
                if reading != "joint":
                    assert np.linalg.norm(s.heads) == pytest.approx(s.score, rel=1e-12)
                    assert len(s.heads) == HEADS


@pytest.mark.parametrize("dtype", ["F16", "BF16", "F8_E4M3", "F8_E5M2"])
@pytest.mark.parametrize("finite", [True, False])
def test_every_number_of_a_narrow_dtype_is_widened_exactly(dtype: str, finite: bool) -> None:
    """Sign, exponent and mantissa read off the bits, one number after the other."""
    exponent_bits, mantissa_bits = {"F16": (5, 10), "BF16": (8, 7), "F8_E4M3": (4, 3), "F8_E5M2": (5, 2)}[dtype]
    width = 1 + exponent_bits + mantissa_bits
    bias, top = 2 ** (exponent_bits - 1) - 1, 2**exponent_bits - 1

    def number(bits: int) -> float:
        sign = -1.0 if bits >> (width - 1) else 1.0
        exponent, mantissa = (bits >> mantissa_bits) & top, bits & (2**mantissa_bits - 1)
        if dtype == "F8_E4M3" and exponent == top and mantissa == 7:
            return math.nan
        if dtype != "F8_E4M3" and exponent == top:
            return math.nan if mantissa else sign * math.inf
        return sign * math.ldexp(
            mantissa + (exponent > 0) * 2**mantissa_bits, max(exponent, 1) - bias - mantissa_bits
        )

    expected = {bits: number(bits) for bits in range(2**width)}
    if finite:
        expected = {bits: value for bits, value in expected.items() if math.isfinite(value)}
    raw = np.array(list(expected), f"<u{width // 8}").tobytes()
    wide = widen(memoryview(raw), dtype, (1, len(expected)))
    assert wide.dtype == np.float32
    np.testing.assert_array_equal(wide[0], np.array(list(expected.values()), np.float32))
    signs = {bits: bits >> (width - 1) for bits, value in expected.items() if not math.isnan(value)}
    np.testing.assert_array_equal(np.signbit(wide[0])[~np.isnan(wide[0])], list(signs.values()))


@pytest.mark.parametrize("dtype", ["F16", "BF16"])
@pytest.mark.parametrize("finite", [True, False])
@pytest.mark.parametrize("checked", [True, False])
def test_numbers_are_widened_in_pairs(dtype: str, finite: bool, checked: bool) -> None:
    """The same numbers, those at even places first; rows that stand apart, as in the reader."""
    bits = np.arange(1 << 16, dtype="<u2")
    beyond = bits & (0x7C00 if dtype == "F16" else 0x7F80) == (0x7C00 if dtype == "F16" else 0x7F80)
    raw = np.random.default_rng(0).permutation(bits[~beyond] if finite else bits).reshape(8, -1)
    plain, paired = (np.empty((8, raw.shape[1] + 16), np.float32)[:, : raw.shape[1]] for _ in "ab")
    widen_into(plain, raw, dtype)
    widen_pairs(paired, raw, dtype, finite=not checked)
    in_order = np.concatenate([plain[:, ::2], plain[:, 1::2]], axis=1)
    if dtype == "F16" and not checked:
        assert (np.abs(paired[~np.isfinite(in_order)]) >= FROM_HALF).all()
        in_order = np.where(np.isfinite(in_order), in_order, paired)
    np.testing.assert_array_equal(paired, in_order)


def test_large_but_finite_float16_weights(tmp_path: Path) -> None:
    """Their Gram matrices could be those of inf or nan: the heads are looked at, and found to be finite."""
    tensors = random_tensors(llama_shapes())
    for layer in range(LAYERS):
        for part in "qk":
            weights = tensors[name(layer, part)]
            weights *= 60000 / np.abs(weights).max()
    root = write_checkpoint(tmp_path / "m", tensors, llama_config(), dtype="F16")
    dtypes = dict.fromkeys(tensors, "F16")
    for reading in READINGS:
        for s in gatenorm_stream.score(root, reading=reading):
            assert s.score == pytest.approx(expected(tensors, dtypes, s.layer)[reading], rel=1e-5)


def test_a_file_cut_short_after_opening_is_an_error(llama: Path) -> None:
    with open_checkpoint(LocalSource(llama)) as checkpoint:
        model = read_model(checkpoint)
        last = max(queries_and_keys(model), key=lambda t: t.range.stop)
        with open(llama / last.shard.name, "r+b") as file:
            file.truncate(last.range.stop - 1)
        with pytest.raises(CheckpointError, match="was cut short; restore it"):
            scored(model, "per-head")


def test_extreme_but_finite_bf16_weights(tmp_path: Path) -> None:
    """Squares beyond float32 in both directions; subnormal numbers included."""
    tensors = random_tensors(llama_shapes())
    for layer, power in enumerate([1e37, 1e-37, 1e-39, 1.0]):
        for part in "qk":
            tensors[name(layer, part)] *= power
    root = write_checkpoint(tmp_path / "m", tensors, llama_config())
    dtypes = dict.fromkeys(tensors, "BF16")
    for reading in READINGS:
        for s in gatenorm_stream.score(root, reading=reading):
            assert s.score == pytest.approx(expected(tensors, dtypes, s.layer)[reading], rel=1e-5)


@pytest.mark.parametrize("value", [np.inf, np.nan])
@pytest.mark.parametrize("dtype", ["F64", "F32", "F16", "BF16"])
@pytest.mark.parametrize("reading", READINGS)
def test_inf_and_nan_name_the_tensor(tmp_path: Path, value: float, dtype: str, reading: Reading) -> None:
    tensors, damaged = random_tensors(llama_shapes()), name(2, "k")
    tensors[damaged].reshape(-1)[5] = value
    root = write_checkpoint(tmp_path / "m", tensors, llama_config(), dtype=dtype)
    with pytest.raises(CheckpointError, match=f"^{re.escape(damaged)} in .* holds inf or nan"):
        gatenorm_stream.score(root, reading=reading)


@pytest.mark.parametrize("reading", READINGS)
def test_the_same_whatever_the_number_of_threads(llama: Path, reading: Reading) -> None:
    one, seven = (gatenorm_stream.score(llama, reading=reading, threads=n) for n in (1, 7))
    assert one == seven


def ranges_read(
    model: Model,
    reading: Reading,
    monkeypatch: pytest.MonkeyPatch,
    methods: tuple[str, ...] = ("read", "read_into"),
) -> list[tuple[str, ByteRange]]:
    """Every range that scoring asks for by these methods, recorded on its way to the real file."""
    seen: list[tuple[str, ByteRange]] = []

    def recorded(original: Callable[..., Any]) -> Callable[..., Any]:
        def read(self: LocalFile, where: ByteRange, *rest: Any) -> Any:
            seen.append((self.path.name, where))
            return original(self, where, *rest)

        return read

    with monkeypatch.context() as patched:
        for name in methods:
            patched.setattr(LocalFile, name, recorded(getattr(LocalFile, name)))
        scored(model, reading)
    return seen


@pytest.mark.parametrize("reading", READINGS)
def test_reads_its_projections_and_nothing_else(
    llama: Path, monkeypatch: pytest.MonkeyPatch, reading: Reading
) -> None:
    read: dict[str, set[int]] = {}
    with open_checkpoint(LocalSource(llama)) as checkpoint:
        model = read_model(checkpoint)
        for file, where in ranges_read(model, reading, monkeypatch):
            read.setdefault(file, set()).update(range(where.start, where.stop))
        wanted: dict[str, set[int]] = {}
        for tensor in queries_and_keys(model):
            wanted.setdefault(tensor.shard.name, set()).update(range(tensor.range.start, tensor.range.stop))
    assert read == wanted


@pytest.mark.parametrize("block_bytes", [1, 2000])
def test_heads_that_are_columns_are_read_in_blocks_of_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block_bytes: int
) -> None:
    """Of one row and of five of the 32, as GPT-2 stores them; one layer's are so small that they are read twice."""
    shapes: dict[str, tuple[int, ...]] = {}
    for n in range(2):
        shapes |= {f"h.{n}.attn.c_attn.weight": (32, 96), f"h.{n}.attn.c_proj.weight": (32, 32)}
    tensors = random_tensors(shapes)
    tensors["h.1.attn.c_attn.weight"] *= 1e-30
    config = {"model_type": "gpt2", "n_layer": 2, "n_embd": 32, "n_head": 4}
    root = write_checkpoint(tmp_path / "m", tensors, config, dtype="F32")
    monkeypatch.setattr("gatenorm_stream.scoring.head_reader.BLOCK_BYTES", block_bytes)
    for s in gatenorm_stream.score(root):
        q, k, _ = np.split(tensors[f"h.{s.layer}.attn.c_attn.weight"].astype(np.float32).T, 3)
        assert s.score == pytest.approx(brute_force(q, k, Heads(4, 4, 8))["per-head"], rel=1e-5)


def test_each_byte_is_read_once(llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_checkpoint(LocalSource(llama)) as checkpoint:
        model = read_model(checkpoint)
        count = sum(len(where) for _, where in ranges_read(model, "per-head", monkeypatch))
    assert count == sum(len(t.range) for t in queries_and_keys(model))


def test_what_is_read_ahead_is_what_will_be_read(llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_checkpoint(LocalSource(llama)) as checkpoint:
        model = read_model(checkpoint)
        ahead = ranges_read(model, "per-head", monkeypatch, ("expect",))
        assert sorted(ahead) == sorted((t.shard.name, t.range) for t in queries_and_keys(model))


def test_progress_reaches_the_total(llama: Path) -> None:
    seen: list[tuple[str, int, int, str]] = []
    gatenorm_stream.score(llama, progress=lambda *report: seen.append(report))
    assert seen[-1][1] == seen[-1][2] > 0
    assert [s[1] for s in seen] == sorted(s[1] for s in seen)
