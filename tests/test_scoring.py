"""Scores of checkpoints on disk, read through every dtype, shard and order, against brute force."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
from checkpoints import (
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
from hypothesis import given, settings
from hypothesis import strategies as st
from test_gate_norm import brute_force

import gatenorm_stream
from gatenorm_stream.checkpoint.local import LocalFile, LocalSource
from gatenorm_stream.checkpoint.open import Tensor, open_checkpoint
from gatenorm_stream.checkpoint.ranges import ByteRange
from gatenorm_stream.errors import CheckpointError
from gatenorm_stream.families.model import Model, read_model
from gatenorm_stream.heads import Heads
from gatenorm_stream.readings import READINGS
from gatenorm_stream.scoring import score_model

HEADS_ = Heads(HEADS, KV_HEADS, HEAD_DIM)


def projections(model: Model) -> list[Tensor]:
    return [
        model.checkpoint.tensors[f"model.layers.{n}.self_attn.{p}_proj.weight"] for n in range(LAYERS) for p in "qk"
    ]


def expected(tensors: dict[str, np.ndarray], dtypes: dict[str, str], layer: int) -> dict[str, float]:
    q, k = (
        decode(encode(tensors[name], dtypes[name]), dtypes[name], tensors[name].shape)
        for name in (f"model.layers.{layer}.self_attn.{p}_proj.weight" for p in "qk")
    )
    return brute_force(q, k, HEADS_)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    shards=st.integers(1, 5),
    dtypes=st.lists(st.sampled_from(["F64", "F32", "F16", "BF16"]), min_size=2 * LAYERS, max_size=2 * LAYERS),
    threads=st.integers(1, 4),
)
def test_any_dtype_shard_and_order(seed: int, shards: int, dtypes: list[str], threads: int) -> None:
    tensors = random_tensors(llama_shapes(), seed)
    projections = [f"model.layers.{n}.self_attn.{p}_proj.weight" for n in range(LAYERS) for p in "qk"]
    chosen = dict(zip(projections, dtypes, strict=True))
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


def test_extreme_but_finite_bf16_weights(tmp_path: Path) -> None:
    """Squares beyond float32 in both directions; subnormal numbers included."""
    tensors = random_tensors(llama_shapes())
    for layer, power in enumerate([1e37, 1e-37, 1e-39, 1.0]):
        for p in "qk":
            tensors[f"model.layers.{layer}.self_attn.{p}_proj.weight"] *= power
    root = write_checkpoint(tmp_path / "m", tensors, llama_config())
    dtypes = dict.fromkeys(tensors, "BF16")
    for reading in READINGS:
        for s in gatenorm_stream.score(root, reading=reading):
            assert s.score == pytest.approx(expected(tensors, dtypes, s.layer)[reading], rel=1e-5)


@pytest.mark.parametrize("value", [np.inf, np.nan])
@pytest.mark.parametrize("dtype", ["F64", "F32", "F16", "BF16"])
@pytest.mark.parametrize("reading", READINGS)
def test_inf_and_nan_name_the_tensor(tmp_path: Path, value: float, dtype: str, reading: str) -> None:
    tensors = random_tensors(llama_shapes())
    name = "model.layers.2.self_attn.k_proj.weight"
    tensors[name][3, 5] = value
    root = write_checkpoint(tmp_path / "m", tensors, llama_config(), dtype=dtype)
    with pytest.raises(CheckpointError, match=f"{name} in .* holds inf or nan"):
        gatenorm_stream.score(root, reading=reading)


def test_the_same_whatever_the_number_of_threads(llama: Path) -> None:
    assert gatenorm_stream.score(llama, threads=1) == gatenorm_stream.score(llama, threads=7)


@pytest.mark.parametrize("reading", READINGS)
def test_reads_q_and_k_and_nothing_else(llama: Path, monkeypatch: pytest.MonkeyPatch, reading: str) -> None:
    """Every range that is read is recorded, on its way to the real file."""
    read: dict[str, set[int]] = {}
    original = LocalFile.read

    def recording(self: LocalFile, where: ByteRange) -> memoryview:
        read.setdefault(self.path.name, set()).update(range(where.start, where.stop))
        return original(self, where)

    with open_checkpoint(LocalSource(llama)) as checkpoint:
        model = read_model(checkpoint)
        monkeypatch.setattr(LocalFile, "read", recording)
        score_model(model, reading)
        wanted: dict[str, set[int]] = {}
        for tensor in projections(model):
            wanted.setdefault(tensor.shard.name, set()).update(range(tensor.range.start, tensor.range.stop))
    assert read == wanted


def test_per_head_reads_each_byte_once(llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    count = 0
    original = LocalFile.read

    def counting(self: LocalFile, where: ByteRange) -> memoryview:
        nonlocal count
        count += len(where)
        return original(self, where)

    with open_checkpoint(LocalSource(llama)) as checkpoint:
        model = read_model(checkpoint)
        monkeypatch.setattr(LocalFile, "read", counting)
        score_model(model)
    assert count == sum(len(t.range) for t in projections(model))


def test_progress_reaches_the_total(llama: Path) -> None:
    seen: list[tuple[str, int, int, str]] = []
    gatenorm_stream.score(llama, progress=lambda *report: seen.append(report))
    assert seen[-1][1] == seen[-1][2] > 0
    assert [s[1] for s in seen] == sorted(s[1] for s in seen)
