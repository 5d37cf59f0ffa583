"""A model that is run comes into the Hub cache, as huggingface_hub finds it there: once, whole, and checked."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import gatenorm_stream
from tests.hub.hub_faults import Fault, at
from tests.hub.hub_repository import Repository
from tests.hub.hub_runs import FIXTURE, Run, environment
from tests.hub.hub_server import Hub

MEASURE = ("score", "org/m", "--by", "influence", "--tokens", "16")
DOWNLOAD = """
from huggingface_hub import snapshot_download
print(snapshot_download("org/m", allow_patterns=["*.safetensors", "*.json", "*.md"]))
"""


@pytest.fixture
def model(hub: Hub, tmp_path: Path) -> Path:
    folder = tmp_path / "m"
    shutil.copytree(FIXTURE, folder)
    (folder / "pytorch_model.bin").write_bytes(b"pickle" * 1000)
    hub.repositories["org/m"] = Repository(folder)
    return folder


def of_files(hub: Hub) -> list[str]:
    return [request.file for request in hub.log if request.file and request.method == "GET"]


def cache(tmp_path: Path) -> Path:
    return tmp_path / "hf-home" / "hub" / "models--org--m"


@pytest.mark.slow
def test_a_second_run_needs_no_network(hub: Hub, run: Run, model: Path, tmp_path: Path) -> None:
    first = run(*MEASURE, "--json")
    assert first.returncode == 0
    assert first.stderr.startswith("to run org/m, ")
    assert str(cache(tmp_path)) in first.stderr
    weights = sum(path.stat().st_size for path in model.glob("*.safetensors"))
    assert sum(r.sent for r in hub.log if r.file.endswith(".safetensors") and r.status == 206) == weights
    assert "pytorch_model.bin" not in of_files(hub)
    hub.log.clear()
    again = run(*MEASURE, "--json", HF_HUB_OFFLINE="1")
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["layers"] == json.loads(first.stdout)["layers"]
    assert again.stderr == ""
    assert run("org/m", "--out", "out", "--by", "influence", "--drop", "1", "--tokens", "16").returncode == 0
    assert of_files(hub) == []
    gatenorm_stream.verify(tmp_path / "out", against=model)


@pytest.mark.slow
def test_huggingface_hub_takes_it_as_its_own(hub: Hub, run: Run, model: Path, tmp_path: Path) -> None:
    assert run(*MEASURE).returncode == 0
    hub.log.clear()
    done = subprocess.run(
        [sys.executable, "-c", DOWNLOAD], env=environment(hub, tmp_path), capture_output=True, text=True, check=True
    )
    assert of_files(hub) == []
    snapshot = Path(done.stdout.strip())
    for path in model.iterdir():
        if path.suffix in (".safetensors", ".json"):
            assert (snapshot / path.name).read_bytes() == path.read_bytes()
    blobs = {path.name: path.read_bytes() for path in (cache(tmp_path) / "blobs").iterdir()}
    assert all(name in (_sha256(data), _git(data)) for name, data in blobs.items())


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _git(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


@pytest.mark.slow
def test_what_huggingface_hub_fetched_is_not_fetched_again(hub: Hub, run: Run, model: Path, tmp_path: Path) -> None:
    variables = environment(hub, tmp_path, HF_HUB_DISABLE_XET="1")
    subprocess.run([sys.executable, "-c", DOWNLOAD], env=variables, capture_output=True, check=True)
    hub.log.clear()
    done = run(*MEASURE)
    assert (done.returncode, done.stderr) == (0, "")
    assert of_files(hub) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", ["model-00001-of-00003.safetensors", "tokenizer.json"])
def test_bytes_of_another_digest_do_not_stay(hub: Hub, run: Run, model: Path, tmp_path: Path, name: str) -> None:
    hub.faults.add(Fault("corrupt", match=at(file=name), times=None))
    done = run(*MEASURE)
    assert done.returncode == 1
    assert not (cache(tmp_path) / "snapshots" / hub.repositories["org/m"].commit / name).exists()
    assert not list((cache(tmp_path) / "blobs").glob("*incomplete*"))
    hub.faults.clear()
    assert run(*MEASURE).returncode == 0


@pytest.mark.slow
def test_a_mirror_without_digests_is_measured_without_the_cache(
    hub: Hub, run: Run, model: Path, tmp_path: Path
) -> None:
    hub.routes.sizes = False
    done = run(*MEASURE)
    assert (done.returncode, done.stderr) == (0, "")
    assert not (cache(tmp_path) / "blobs").exists()


@pytest.mark.slow
def test_a_cache_that_cant_be_written(hub: Hub, run: Run, model: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = run(*MEASURE, HF_HUB_CACHE=str(tmp_path / "file" / "hub"))
    assert done.returncode == 1
    assert "can't be written: Not a directory; set HF_HUB_CACHE to another place" in done.stderr
