"""Scores from a real scheduler and real worker processes on the loopback (nox -s dask)."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import gatenorm_stream
from gatenorm_stream.checkpoint.safetensors import open_checkpoint
from gatenorm_stream.errors import CheckpointError, GateNormError
from gatenorm_stream.families.model import read_model
from gatenorm_stream.scoring.cluster import score_on_cluster
from gatenorm_stream.scoring.readings import READINGS, Reading
from gatenorm_stream.sources.local import LocalSource
from tests.checkpoints import llama_config, llama_shapes, random_tensors, write_checkpoint
from tests.dask.clusters import LAYERS, Cluster
from tests.signals.ending import ENDS, ends

COMMAND = str(Path(sys.executable).with_name("gatenorm-stream"))


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path)
    try:
        cluster.wait_for_workers()
        yield cluster
    finally:
        cluster.stop()


@pytest.mark.parametrize("reading", READINGS)
def test_the_command_prints_the_same_to_the_last_bit(cluster: Cluster, model: Path, reading: Reading) -> None:
    words = [COMMAND, "score", str(model), "--reading", reading, "--json", "--quiet"]
    here = subprocess.run(words, check=True, capture_output=True).stdout
    there = subprocess.run([*words, "--dask", cluster.address], check=True, capture_output=True).stdout
    assert there == here
    assert len(json.loads(there)["layers"]) == LAYERS


def test_every_byte_is_read_once_and_the_work_is_shared(cluster: Cluster, model: Path) -> None:
    parts = ("q_proj", "k_proj")
    with open_checkpoint(LocalSource(model)) as checkpoint:
        score_on_cluster(cluster.address, read_model(checkpoint))
        tensors = [t for name, t in checkpoint.tensors.items() if name.split(".")[-2] in parts]
        wanted = {(t.shard.name, n) for t in tensors for n in range(t.range.start, t.range.stop)}
    count = sum(stop - start for _, _, start, stop in cluster.reads)
    assert {(file, n) for _, file, start, stop in cluster.reads for n in range(start, stop)} == wanted
    assert count == len(wanted)
    assert len({worker for worker, *_ in cluster.reads}) == 2


def test_a_worker_killed_midway_changes_nothing(cluster: Cluster, model: Path) -> None:
    killed: list[int] = []

    def kill(what: str, done: int, total: int, file: str) -> None:
        if not killed:
            assert done < total
            killed.append(cluster.reads[-1][0])
            os.kill(killed[0], signal.SIGKILL)

    with open_checkpoint(LocalSource(model)) as checkpoint:
        scores = score_on_cluster(cluster.address, read_model(checkpoint), progress=kill)
    assert scores == gatenorm_stream.score(model)
    assert killed
    survivors = {worker for worker, *_ in cluster.reads} - set(killed)
    assert len(survivors) == 1


def test_progress_reaches_the_total(cluster: Cluster, model: Path) -> None:
    seen: list[tuple[int, int]] = []
    with open_checkpoint(LocalSource(model)) as checkpoint:
        score_on_cluster(cluster.address, read_model(checkpoint), progress=lambda _, d, t, __: seen.append((d, t)))
    assert len(seen) == LAYERS
    assert seen[-1][0] == seen[-1][1] > 0


def test_a_damaged_tensor_is_named_as_it_is_locally(cluster: Cluster, tmp_path: Path) -> None:
    tensors = random_tensors(llama_shapes())
    tensors["model.layers.2.self_attn.k_proj.weight"][3, 5] = float("nan")
    damaged = write_checkpoint(tmp_path / "damaged", tensors, llama_config())
    says = pytest.raises(CheckpointError, match="layers.2.self_attn.k_proj.weight in .* holds inf or nan")
    with open_checkpoint(LocalSource(damaged)) as checkpoint, says:
        score_on_cluster(cluster.address, read_model(checkpoint))


def test_a_file_that_changed_in_between_is_an_error(cluster: Cluster, model: Path) -> None:
    with open_checkpoint(LocalSource(model)) as checkpoint:
        read = read_model(checkpoint)
        os.utime(model / read.attention[5].key.weight.tensor.shard.name)
        with pytest.raises(CheckpointError, match="is not the same file here"):
            score_on_cluster(cluster.address, read)


def test_a_scheduler_that_is_not_there_is_one_line(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gatenorm_stream.scoring.cluster.PATIENCE", "1s")
    says = pytest.raises(GateNormError, match="tcp://127.0.0.1:9 can't be reached")
    with open_checkpoint(LocalSource(model)) as checkpoint, says:
        score_on_cluster("tcp://127.0.0.1:9", read_model(checkpoint))


@pytest.mark.parametrize("greets", [False, True])
def test_a_silent_scheduler_times_out(model: Path, monkeypatch: pytest.MonkeyPatch, greets: bool) -> None:
    monkeypatch.setattr("gatenorm_stream.scoring.cluster.PATIENCE", "1s")
    with socket.create_server(("127.0.0.1", 0)) as silent:

        def talk() -> None:
            connection, _ = silent.accept()
            if greets:
                connection.sendall(bytes(8))
            time.sleep(20)

        threading.Thread(target=talk, daemon=True).start()
        address = f"tcp://127.0.0.1:{silent.getsockname()[1]}"
        begun = time.monotonic()
        says = pytest.raises(GateNormError, match="can't be reached")
        with open_checkpoint(LocalSource(model)) as checkpoint, says:
            score_on_cluster(address, read_model(checkpoint))
        assert time.monotonic() - begun < 15


@pytest.mark.parametrize("number", ENDS, ids=lambda number: number.name)
def test_a_signal_ends_the_wait_for_workers(model: Path, tmp_path: Path, number: signal.Signals) -> None:
    """Of a scheduler that has none."""
    place = tmp_path / "scheduler.json"
    options = ("--port", "0", "--no-dashboard", "--host", "127.0.0.1", "--scheduler-file", str(place))
    scheduler = subprocess.Popen([sys.executable, "-m", "dask", "scheduler", *options], stderr=subprocess.DEVNULL)
    try:
        while not place.exists() or not place.read_text():
            time.sleep(0.05)
        ready = time.monotonic() + 5
        words = ["score", model, "--dask", json.loads(place.read_text())["address"]]
        ends(words, lambda _: time.monotonic() > ready, number, tmp_path, os.environ)
    finally:
        scheduler.kill()
        scheduler.wait()


def test_a_scheduler_that_stops_midway_times_out(
    cluster: Cluster, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gatenorm_stream.scoring.cluster.PATIENCE", "2s")

    def stop(what: str, done: int, total: int, file: str) -> None:
        for process in cluster._processes:
            process.send_signal(signal.SIGSTOP)

    says = pytest.raises(GateNormError, match="fell silent")
    with open_checkpoint(LocalSource(model)) as checkpoint, says:
        score_on_cluster(cluster.address, read_model(checkpoint), progress=stop)
