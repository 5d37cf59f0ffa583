"""Costs are reckoned before they arise: models, plans, folders and holes that no model has end in one line."""

from __future__ import annotations

import json
import math
import os
import resource
import struct
import sys
import tracemalloc
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gatenorm_stream
from gatenorm_stream.checkpoint.tensors import MOST_TENSORS, Header, Shard, TensorInfo
from gatenorm_stream.checkpoint.tensors import counted as counted_shards
from gatenorm_stream.cli.main import allow_open_files
from gatenorm_stream.cli.options import chosen
from gatenorm_stream.errors import CheckpointError, GateNormError, PlanError, VerificationError
from gatenorm_stream.families.heads import Heads
from gatenorm_stream.families.open import open_model
from gatenorm_stream.families.sizes import MOST_HEADS_IN_ALL, MOST_LAYERS
from gatenorm_stream.planning.plan import plan_from_json
from gatenorm_stream.report.picture import score_picture
from gatenorm_stream.report.svg import html
from gatenorm_stream.scoring.gate_norm import MEMORY, joint, stored
from gatenorm_stream.scoring.scorable import check_scorable
from gatenorm_stream.scoring.scores import LARGEST_SCORE, LayerScore
from gatenorm_stream.sources.local import LocalSource
from gatenorm_stream.sources.open import open_source
from gatenorm_stream.sources.ranges import ByteRange
from gatenorm_stream.sources.walk import DEEPEST
from gatenorm_stream.verifying import holes
from gatenorm_stream.writing import destination, record
from tests.bytes_read import bytes_read, counted
from tests.checkpoints import llama_config, llama_shapes, random_tensors, write_checkpoint
from tests.conftest import FIXTURE, Run
from tests.gguf_files import shapes, tensors, write_gguf
from tests.records import files_of, record_anew

WIDE = {"num_attention_heads": 1 << 12, "num_key_value_heads": 1 << 12, "head_dim": 1024, "hidden_size": 1 << 12}
FEWER = {"num_attention_heads": 1 << 10, "num_key_value_heads": 1 << 10, "dtype": "F64"}


def claimed(root: Path, *, dtype: str = "BF16", **changes: Any) -> Path:
    """A checkpoint of holes whose headers say whatever is asked for: q, k, v and o of each layer."""
    config = llama_config(**changes)
    hidden, queries, keys = (config[f"{k}"] for k in ("hidden_size", "num_attention_heads", "num_key_value_heads"))
    dim = config.get("head_dim") or hidden // queries
    sizes = {"q": (queries * dim, hidden), "k": (keys * dim, hidden), "v": (keys * dim, hidden)}
    sizes["o"] = sizes["q"][::-1]
    entries, end = {}, 0
    for layer in range(config["num_hidden_layers"]):
        for part, shape in sizes.items():
            size = math.prod(shape) * (8 if dtype == "F64" else 2)
            entries[f"model.layers.{layer}.self_attn.{part}_proj.weight"] = {
                "dtype": dtype,
                "shape": shape,
                "data_offsets": [end, end + size],
            }
            end += size
    root.mkdir()
    (root / "config.json").write_text(json.dumps(config))
    text = json.dumps(entries).encode()
    with open(root / "model.safetensors", "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + end)
    return root


def refusal(root: Path, reading: Any = "per-head") -> str:
    with pytest.raises(GateNormError) as caught, open_model(open_source(root)) as model:
        check_scorable(model, reading)
    return str(caught.value)


@counted
@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"num_hidden_layers": MOST_LAYERS + 1, "hidden_size": 4, "head_dim": 1}, f"{MOST_LAYERS + 1} layers"),
        (
            {"num_hidden_layers": 8, "num_attention_heads": 1 << 16, "head_dim": 1, "hidden_size": 1},
            f"{8 << 16} heads in 8 layers",
        ),
        (
            {"num_attention_heads": 512, "num_key_value_heads": 1, "head_dim": 256, "hidden_size": 64},
            "numbers in the Gram matrices",
        ),
        pytest.param(
            {"num_hidden_layers": 32, **WIDE, **FEWER}, "bytes of queries and keys", marks=pytest.mark.slow
        ),
        pytest.param({"num_hidden_layers": 8, **WIDE}, "operations for the reading joint", marks=pytest.mark.slow),
    ],
)
def test_a_model_beyond_the_budget_is_refused_from_its_headers(
    tmp_path: Path, changes: dict[str, Any], says: str
) -> None:
    """The file takes no more of the disk than its header; what lies behind are holes."""
    root = claimed(tmp_path / "m", **changes)
    refusal(root, "joint")  # imports what is imported late
    counts = bytes_read()
    next(counts)
    assert says in refusal(root, "joint")
    assert next(counts) < 2 * (root / "model.safetensors").stat().st_blocks * 512 + (1 << 16)


def test_more_tensors_than_any_model_has_are_refused() -> None:
    """As soon as a header is one too many, whatever else there is."""
    info = TensorInfo("a", "U8", (1,), ByteRange(0, 1))
    half = Shard("m", None, Header((info,) * (MOST_TENSORS // 2)))  # type: ignore[arg-type]
    one = Shard("n", None, Header((info,)))  # type: ignore[arg-type]
    assert [*counted_shards([half, half], "m")] == [half, half]
    with pytest.raises(CheckpointError, match=f"m has {MOST_TENSORS + 1} tensors or more"):
        next(islice(counted_shards(iter([half, half, one]), "m"), 2, None))


def test_many_layers_and_tensors_take_linear_time(tmp_path: Path) -> None:
    """Steps of Python are counted, so that a busy machine does not matter."""

    def steps(layers: int) -> int:
        root, counted = claimed(tmp_path / str(layers), num_hidden_layers=layers, hidden_size=4, head_dim=1), 0

        def count(*_: object) -> None:
            nonlocal counted
            counted += 1

        with open_model(open_source(root)) as model:
            sys.setprofile(count)
            try:
                assert sum(len(model.attention_tensors(layer)) for layer in range(layers)) == 4 * layers
            finally:
                sys.setprofile(None)
        return counted

    few, many = steps(50), steps(400)
    assert many < 10 * few


@pytest.mark.parametrize("formula", [joint, stored], ids=["joint", "stored"])
def test_narrow_matrices_of_many_rows_take_no_more_than_is_said(formula: Callable[..., Any]) -> None:
    heads = Heads(64, 64, 64)
    numbers = np.random.default_rng(0).standard_normal((64, 64, 4)).astype(np.float32)
    import tracemalloc

    def head_of(head: int, rows: slice = slice(None), /) -> np.ndarray:
        return numbers[head][rows]

    tracemalloc.start()
    found = formula(head_of, head_of, heads)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1.5 * MEMORY
    whole = numbers.reshape(-1, 4).astype(np.float64)
    expected = np.linalg.norm(whole.T @ whole if formula is joint else whole @ whole.T)
    assert np.hypot.reduce(np.atleast_1d(found)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("reading", ["per-head", "joint", "stored"])
def test_weights_beyond_all_numbers_are_named(tmp_path: Path, reading: Any) -> None:
    root = claimed(tmp_path / "m", dtype="F64")
    path = root / "model.safetensors"
    data = path.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    path.write_bytes(data[:start] + struct.pack("<d", 1e307) * ((len(data) - start) // 8))
    with pytest.raises(CheckpointError, match=r"layer 0 of .* scores inf"):
        gatenorm_stream.score(root, reading=reading)


@pytest.mark.parametrize("norms", [(1e300, 5e-324, 0.0), (5e-324,), (0.0,)])
def test_any_scores_of_a_plan_are_drawn(norms: tuple[float, ...]) -> None:
    scores = tuple(LayerScore(n, norm, norms) for n, norm in enumerate(norms))
    assert "nan" not in html(score_picture("m", "per-head", scores, (0,)))


@pytest.mark.parametrize(
    "layers",
    [
        [{"layer": n, "score": 1, "heads": []} for n in range(MOST_LAYERS + 1)],
        [{"layer": n, "score": 1, "heads": [1] * (MOST_HEADS_IN_ALL // 2)} for n in range(3)],
        [{"layer": 0, "score": 1.1 * LARGEST_SCORE, "heads": []}, {"layer": 1, "score": 1, "heads": []}],
        [{"layer": 0, "score": -1, "heads": []}, {"layer": 1, "score": 1, "heads": []}],
    ],
    ids=["layers", "heads", "a score", "a score below nothing"],
)
def test_a_plan_beyond_the_budget_is_refused(layers: list[Any]) -> None:
    plan = gatenorm_stream.plan(FIXTURE, layers=[3]).to_json()
    with pytest.raises(PlanError, match="layers must be"):
        plan_from_json({**plan, "layers": layers}, "plan")


def test_more_files_than_a_record_may_list_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the first byte is written, and by whoever reads a record."""
    source = write_checkpoint(tmp_path / "source", random_tensors(llama_shapes()), llama_config())
    plan = gatenorm_stream.plan(source, layers=[1])
    gatenorm_stream.prune(plan, tmp_path / "out")
    count = len(files_of(tmp_path / "out"))
    monkeypatch.setattr(destination, "MOST_FILES", count)
    gatenorm_stream.prune(plan, tmp_path / "as many")
    monkeypatch.setattr(destination, "MOST_FILES", count - 1)
    with pytest.raises(GateNormError, match=f"would have {count} files, and at most {count - 1} are written"):
        gatenorm_stream.prune(plan, tmp_path / "more")
    assert not list(tmp_path.glob("more*"))
    monkeypatch.setattr(record, "MOST_FILES", count - 1)
    with pytest.raises(VerificationError, match=f"lists {count} files"):
        gatenorm_stream.verify(tmp_path / "out")


def test_deep_folders_are_refused(tmp_path: Path) -> None:
    root = write_checkpoint(tmp_path / "m", random_tensors(llama_shapes()), llama_config())
    out = tmp_path / "out"
    gatenorm_stream.prune(gatenorm_stream.plan(root, layers=[1]), out)
    for folder in (root, out):
        folder.joinpath(*["d"] * (DEEPEST + 2)).mkdir(parents=True)
    with pytest.raises(CheckpointError, match=f"more than {DEEPEST} deep"):
        gatenorm_stream.score(root)
    with pytest.raises(CheckpointError, match=f"more than {DEEPEST} deep"):
        gatenorm_stream.verify(out)


def test_a_source_whose_name_is_no_utf8_is_pruned(tmp_path: Path) -> None:
    source = write_checkpoint(tmp_path / os.fsdecode(b"m\xff"), random_tensors(llama_shapes()), llama_config())
    gatenorm_stream.prune(gatenorm_stream.plan(source, layers=[1]), tmp_path / "out", source=source)
    assert gatenorm_stream.verify(tmp_path / "out", against=source).plan.source.endswith("/m?")


def test_mostly_holes_are_not_hashed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_checkpoint(tmp_path / "m", random_tensors(llama_shapes()), llama_config())
    out = tmp_path / "out"
    gatenorm_stream.prune(gatenorm_stream.plan(source, layers=[1]), out)
    gatenorm_stream.verify(out)
    monkeypatch.setattr(holes, "MOST", 1 << 20)
    shard = next(out.glob("*.safetensors"))
    os.truncate(shard, 1 << 40)
    with pytest.raises(VerificationError, match="bytes of holes"):
        gatenorm_stream.verify(out)


def test_what_stands_behind_the_last_tensor_is_read_in_pieces(tmp_path: Path) -> None:
    """A gigabyte of holes there took a gigabyte of memory and half a minute."""
    source = write_gguf(tmp_path / "model.gguf", tensors(shapes()))
    out = tmp_path / "out.gguf"
    gatenorm_stream.prune(gatenorm_stream.plan(source, layers=[1]), out)
    os.truncate(out, 128 << 20)
    record_anew(out)
    tracemalloc.start()
    try:
        gatenorm_stream.verify(out, against=source)
        assert tracemalloc.get_traced_memory()[1] < 64 << 20
    finally:
        tracemalloc.stop()


def test_ranges_of_layers_take_no_memory() -> None:
    choice = chosen(None, None, ",".join(["7-999999,3"] * 300), None, None, 0)
    assert choice.layers == (*range(7, 7 + len(choice.layers or ()) - 1), 3)
    assert MOST_LAYERS < len(choice.layers) < 20_000


def test_files_may_be_open_up_to_the_users_own_limit() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
        allow_open_files()
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] > 64
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_too_few_open_files_are_named(tmp_path: Path) -> None:
    source = write_checkpoint(tmp_path / "m", random_tensors(llama_shapes()), llama_config())
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    held = [os.open(os.devnull, os.O_RDONLY) for _ in range(8)]
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(held) + 1, hard))
        with pytest.raises(CheckpointError, match="ulimit -n"):
            LocalSource(source).open("config.json")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for descriptor in held:
            os.close(descriptor)


@pytest.mark.parametrize(
    "environment",
    [
        {"HF_ENDPOINT": "http://[::"},
        {"HF_ENDPOINT": "http://\udcff"},
        {"HTTPS_PROXY": "nonsense://["},
        {"HF_TOKEN": "\xe4", "HF_ENDPOINT": "http://127.0.0.1:9"},
    ],
    ids=lambda e: next(iter(e)),
)
@pytest.mark.slow
def test_a_broken_environment_is_named(run: Run, environment: dict[str, str]) -> None:
    done = run("org/name", "--dry-run", **environment)
    assert done.returncode == 1
    assert "HF_ENDPOINT" in done.stderr
    assert "unexpected" not in done.stderr
