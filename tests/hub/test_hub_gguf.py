"""GGUF files on the Hub, by their byte ranges."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gatenorm_stream.checkpoint.gguf import FIRST_BYTES
from gatenorm_stream.sources.hub.address import HubAddress, hub_address
from tests.gguf_files import BYTES, HIDDEN, shapes, tensors, write_gguf
from tests.hub.hub_repository import Repository
from tests.hub.hub_runs import Run
from tests.hub.hub_server import Hub

pytestmark = pytest.mark.slow

LAYERS = 10
LEAST = {4: 0.1, 7: 0.2}


@pytest.fixture
def files(hub: Hub, tmp_path: Path) -> Path:
    """`org/gguf`: a model of 16 MB, whole and split."""
    folder = tmp_path / "gguf"
    (folder / "split").mkdir(parents=True)
    content = tensors(shapes(LAYERS), "F32", gain=LEAST)
    write_gguf(folder / "model.gguf", content)
    write_gguf(folder / "split/model", content, split=40)
    hub.repositories["org/gguf"] = Repository(folder)
    return folder


@pytest.mark.parametrize(
    ("text", "expected"),
    {
        "org/name:file.gguf": HubAddress("org/name", None, "file.gguf"),
        "org/name@v1:sub/file.gguf": HubAddress("org/name", "v1", "sub/file.gguf"),
        "https://huggingface.co/org/name/blob/main/sub/f.gguf": HubAddress("org/name", "main", "sub/f.gguf"),
        "https://huggingface.co/org/name/resolve/v1/f.gguf?download=true": HubAddress("org/name", "v1", "f.gguf"),
        "hf://org/name@v1/sub/f.gguf": HubAddress("org/name", "v1", "sub/f.gguf"),
        "org/name:file.safetensors": None,
    }.items(),
)
def test_addresses(text: str, expected: HubAddress | None) -> None:
    assert hub_address(text) == expected


@pytest.mark.parametrize("name", ["model.gguf", "split/model-00001-of-00003.gguf"])
def test_score_fetches_headers_q_and_k(name: str, run: Run, hub: Hub, files: Path) -> None:
    remote = run("score", f"org/gguf:{name}", "--json")
    assert remote.returncode == 0, remote.stderr
    fetched = sum(r.sent for r in hub.log if r.file)
    said, local = json.loads(remote.stdout), json.loads(run("score", files / name, "--json").stdout)
    assert (said["model"], said["revision"]) == (f"org/gguf:{name}", hub.repositories["org/gguf"].commit)
    assert said["layers"] == local["layers"]
    needed = LAYERS * (256 + 128) * 256 * 4
    assert needed <= fetched <= 1.01 * needed + 3 * FIRST_BYTES


@pytest.mark.slow
@pytest.mark.parametrize("name", ["model.gguf", "split/model-00001-of-00003.gguf"])
def test_prune(name: str, run: Run, hub: Hub, files: Path, tmp_path: Path) -> None:
    assert run(files / name, "--out", "local.gguf").returncode == 0
    before = len(hub.log)
    done = run(f"org/gguf:{name}", "--out", "out.gguf")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out.gguf").read_bytes() == (tmp_path / "local.gguf").read_bytes()
    fetched = sum(r.sent for r in list(hub.log)[before:] if r.file)
    gone = 2 * (256 + 128) * 256 * 4
    whole = (files / "model.gguf").stat().st_size
    assert fetched <= whole - gone // 2 + 3 * FIRST_BYTES
    assert run("verify", "out.gguf", "--against", f"org/gguf:{name}").returncode == 0
    assert not list(tmp_path.glob("*.partial"))


@pytest.mark.parametrize("split", [None, 20])
def test_each_byte_of_a_model_that_is_run_is_fetched_once(
    split: int | None, run: Run, hub: Hub, tmp_path: Path
) -> None:
    """The headers too, which are read before the files have a place in the Hub cache."""
    folder = tmp_path / "run"
    folder.mkdir()
    table = (len(BYTES), HIDDEN)
    content = tensors(shapes(4) | {"token_embd.weight": table, "output.weight": table}, "Q8_0")
    first = write_gguf(folder / "m.gguf", content, tokens=BYTES, split=split)
    hub.repositories["org/run"] = Repository(folder)
    done = run("score", f"org/run:{first.name}", "--by", "influence", "--tokens", "16")
    assert done.returncode == 0, done.stderr
    files = sorted(folder.iterdir())
    assert len(files) == (1 if split is None else 2)
    sent = [sum(r.sent for r in hub.log if r.file == path.name and r.status == 206) for path in files]
    assert sent == [path.stat().st_size for path in files]


def test_names_that_are_not_there(run: Run, files: Path) -> None:
    done = run("score", "org/gguf:absent.gguf")
    assert done.returncode == 1
    assert "org/gguf has no absent.gguf; its GGUF files: model.gguf, split/model-00001" in done.stderr
    done = run("score", "org/gguf")
    assert done.returncode == 1
    assert "give one of its GGUF files: org/gguf:model.gguf" in done.stderr
