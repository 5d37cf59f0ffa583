"""Where a file system can share bytes between files, an output takes hardly any room."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

import gatenorm_stream
from gatenorm_stream.checkpoint.safetensors import open_checkpoint
from gatenorm_stream.checkpoint.safetensors_header import BLOCK
from gatenorm_stream.sources.local import LocalSource
from tests.checkpoints import llama_config, read_tensors, shapes_of
from tests.conftest import Run

HIDDEN, LAYERS = 512, 4


def wide(root: Path, mlp: int) -> Path:
    """A checkpoint in one shard, none of whose sizes but the norms' is odd for a file system."""
    config = llama_config(
        num_attention_heads=8,
        num_key_value_heads=8,
        head_dim=64,
        hidden_size=HIDDEN,
        intermediate_size=mlp,
        num_hidden_layers=LAYERS,
        vocab_size=64,
        tie_word_embeddings=True,
    )
    rng = np.random.default_rng(0)
    tensors = {name: rng.standard_normal(shape, np.float32) for name, shape in shapes_of(config).items()}
    root.mkdir()
    save_file(tensors, root / "model.safetensors")
    (root / "config.json").write_text(json.dumps(config))
    return root


@pytest.mark.slow
def test_most_bytes_stand_where_they_stood_in_a_block(run: Run, tmp_path: Path) -> None:
    source = wide(tmp_path / "wide", 256)
    for layers, form in (("2", "no-op"), ("1,2", "no-op"), ("1,3", "zeroed"), ("1,3", "transformers")):
        assert run(source, "--out", "out", "--layers", layers, "--format", form, "--force").returncode == 0
        with open_checkpoint(LocalSource(source)) as a, open_checkpoint(LocalSource(tmp_path / "out")) as b:
            kept = {name: t.range for name, t in b.tensors.items() if name in a.tensors}
            alike = sum(len(r) for name, r in kept.items() if not (r.start - a.tensors[name].range.start) % BLOCK)
        assert alike >= sum(map(len, kept.values())) / 2, (layers, form)


@pytest.fixture
def btrfs(tmp_path: Path) -> Iterator[Path]:
    if os.geteuid() or not shutil.which("mkfs.btrfs"):
        pytest.skip("needs root and btrfs-progs")
    image, folder = tmp_path / "image", tmp_path / "mounted"
    with image.open("wb") as file:
        file.truncate(2 << 30)
    folder.mkdir()
    subprocess.run(["mkfs.btrfs", "-q", image], check=True, capture_output=True)
    if subprocess.run(["mount", "-o", "loop", image, folder], capture_output=True).returncode:
        pytest.skip("may not mount an image")
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.mark.slow
def test_an_output_takes_hardly_any_room_on_btrfs(run: Run, btrfs: Path) -> None:
    source = wide(btrfs / "wide", 8 << 10)
    os.sync()
    before = shutil.disk_usage(btrfs).used
    assert run(source, "--out", btrfs / "out", "--layers", "2").returncode == 0
    os.sync()
    size = (btrfs / "out/model.safetensors").stat().st_size
    taken = shutil.disk_usage(btrfs).used - before
    assert size > 200e6
    assert taken < size / 2, taken
    source_tensors = read_tensors(source)
    assert all(source_tensors[name] == t for name, t in read_tensors(btrfs / "out").items())
    assert run("verify", btrfs / "out", "--against", source).returncode == 0
    leave_free(btrfs, size // 2)
    assert run(source, "--out", btrfs / "second", "--layers", "2").returncode == 0
    assert run(source, "--out", btrfs / "zeroed", "--layers", "1", "--format", "zeroed").returncode == 0


def leave_free(folder: Path, count: int) -> None:
    subprocess.run(["fallocate", "-l", str(shutil.disk_usage(folder).free - count), folder / "filler"], check=True)


@pytest.mark.slow
def test_room_is_asked_for_what_is_not_there_yet(run: Run, btrfs: Path, tmp_path: Path) -> None:
    source = wide(tmp_path / "wide", 8 << 10)

    def stop_late(what: str, done: int, total: int, file: str) -> None:
        if what == "writing" and done > 0.8 * total:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        gatenorm_stream.prune(gatenorm_stream.plan(source, layers=[2]), btrfs / "out", progress=stop_late)
    os.sync()
    leave_free(btrfs, (source / "model.safetensors").stat().st_size // 2)
    refused = run(source, "--out", btrfs / "other", "--layers", "2")
    assert (refused.returncode, "GB free" in refused.stderr) == (1, True)
    assert run(source, "--out", btrfs / "out", "--layers", "2").returncode == 0
