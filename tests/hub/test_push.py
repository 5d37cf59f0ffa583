"""Outputs uploaded to the stand-in Hub: private, whole or not at all, and again after a failure.

Through LFS, since the stand-in does not speak Xet.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from tests.conftest import FIXTURE
from tests.gguf_files import shapes, tensors, write_gguf
from tests.hub.hub_faults import Fault, at
from tests.hub.hub_repository import Repository
from tests.hub.hub_runs import Done, Run, contents
from tests.hub.hub_server import Hub

pytestmark = pytest.mark.slow

OWNER = {"HF_TOKEN": "hf_secret", "HF_HUB_DISABLE_XET": "1", "HF_HUB_DOWNLOAD_TIMEOUT": "10"}
PUT = at("storage", method="PUT")


def pushed(hub: Hub, name: str) -> Path:
    repository = hub.repositories[name]
    return repository.commits[repository.commit]


def every_file(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def arrived(hub: Hub, name: str, out: Path) -> bool:
    """All but the record, which goes up without local paths."""
    held, here = every_file(pushed(hub, name)), every_file(out)
    held.pop(".gitattributes", None)
    records = [json.loads(files.pop("gatenorm.json")) for files in (held, here)]
    assert str(FIXTURE.parent) not in json.dumps(records[0])
    for record in records:
        del record["source"], record["blake3"]
    return held == here and records[0] == records[1]


@pytest.fixture
def gguf(tmp_path: Path) -> Path:
    content = tensors(shapes())
    return write_gguf(tmp_path / "model.gguf", content)


def one_error(done: Done, *says: str) -> None:
    assert done.returncode == 1, done.stdout
    assert len(done.stderr.splitlines()) == 1, done.stderr
    for part in says:
        assert part in done.stderr


def test_prune_and_upload(hub: Hub, run: Run, tmp_path: Path) -> None:
    done = run(FIXTURE, "--out", "out", "--push-to", "org/new", **OWNER)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith(f"uploaded out to {hub.endpoint}/org/new (private)\n")
    assert hub.repositories["org/new"].private
    assert arrived(hub, "org/new", tmp_path / "out")
    assert len(hub.repositories["org/new"].commits) == 2  # the one that made it, and ours
    assert all(r.authorization is None for r in hub.log.select("storage"))
    assert run("verify", "out", "--against", FIXTURE).returncode == 0


def test_gguf_files_stand_beside_each_other(hub: Hub, run: Run, gguf: Path, tmp_path: Path) -> None:
    done = run(gguf, "--out", "pruned-Q8_0.gguf", "--push-to", "org/gguf", **OWNER)
    assert (done.returncode, done.stderr) == (0, "")
    assert run(gguf, "--out", "pruned-F16.gguf", **OWNER).returncode == 0
    done = run("push", "pruned-F16.gguf", "org/gguf", **OWNER)
    assert (done.returncode, done.stderr) == (0, "")
    held = every_file(pushed(hub, "org/gguf"))
    for name in ("pruned-Q8_0", "pruned-F16"):
        assert held.pop(f"{name}.gguf") == (tmp_path / f"{name}.gguf").read_bytes()
        record = held.pop(f"{name}.gatenorm.json")
        assert json.loads(record)["files"] == json.loads((tmp_path / f"{name}.gatenorm.json").read_text())["files"]
        assert str(tmp_path).encode() not in record
    assert held.pop("README.md") == (tmp_path / "pruned-F16.gatenorm.md").read_bytes()
    assert held.keys() <= {".gitattributes"}
    assert run("verify", "pruned-F16.gguf", "--against", gguf).returncode == 0


def test_gguf_in_a_repository_of_something_else(hub: Hub, run: Run, gguf: Path) -> None:
    run(FIXTURE, "--out", "out", "--push-to", "org/new", "--quiet", **OWNER)
    done = run(gguf, "--out", "out.gguf", "--push-to", "org/new", **OWNER)
    one_error(done, "org/new holds config.json, which is no GGUF output of gatenorm-stream", "another name")


def test_the_card_names_its_base_and_passes_the_check(hub: Hub, run: Run, tmp_path: Path, monkeypatch) -> None:
    run("org/sotu", "--out", "out", "--push-to", "org/new", "--quiet", **OWNER)
    card = ModelCard.load(tmp_path / "out/README.md")
    assert (card.data.base_model, card.data.base_model_relation) == ("org/sotu", "finetune")
    assert (card.data.license, card.data.language) == ("cc0-1.0", "en")
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.endpoint)
    card.validate()
    card.data.base_model_relation = "pruned"
    with pytest.raises(ValueError, match="base_model_relation"):
        card.validate()


@pytest.mark.slow
def test_a_dropped_connection_is_tried_again(hub: Hub, run: Run, tmp_path: Path) -> None:
    hub.faults.add(Fault("drop", 0, PUT))
    done = run(FIXTURE, "--out", "out", "--push-to", "org/new", **OWNER)
    assert (done.returncode, done.stderr) == (0, "")
    assert arrived(hub, "org/new", tmp_path / "out")


@pytest.mark.slow
def test_a_failed_upload_goes_on(hub: Hub, run: Run, tmp_path: Path) -> None:
    hub.faults.add(Fault("status", 403, PUT, skip=1))
    done = run(FIXTURE, "--out", "out", "--push-to", "org/new", **OWNER)
    one_error(done, "the storage host answered 403", "out is whole", "`gatenorm-stream push out org/new` resumes")
    assert every_file(pushed(hub, "org/new")).keys() == {".gitattributes"}
    kept = {p.name for p in (hub.uploads.folder / "lfs").iterdir()}
    assert kept
    hub.faults.clear()
    hub.log.clear()
    done = run("push", "out", "org/new", **OWNER)
    assert done.returncode == 0, done.stderr
    sent = {r.path.split("?")[0].rpartition("/")[2] for r in hub.log.select("storage", method="PUT")}
    assert sent
    assert not sent & kept
    assert arrived(hub, "org/new", tmp_path / "out")


@pytest.mark.slow
def test_the_same_again_sends_nothing(hub: Hub, run: Run) -> None:
    run(FIXTURE, "--out", "out", "--push-to", "org/new", **OWNER)
    commit = hub.repositories["org/new"].commit
    hub.log.clear()
    assert run("push", "out", "org/new", **OWNER).returncode == 0
    assert hub.repositories["org/new"].commit == commit
    assert not hub.log.select("storage")


@pytest.mark.slow
def test_another_output_replaces_the_first(hub: Hub, run: Run, tmp_path: Path) -> None:
    run(FIXTURE, "--out", "first", "--push-to", "org/new", **OWNER)
    run(FIXTURE, "--out", "second", "--format", "zeroed", "--push-to", "org/new", **OWNER)
    assert arrived(hub, "org/new", tmp_path / "second")
    assert "modeling_gatenorm.py" in every_file(tmp_path / "first")


@pytest.mark.slow
def test_nothing_is_published(hub: Hub, run: Run, tmp_path: Path) -> None:
    hub.repositories["org/public"] = Repository(_empty(tmp_path / "public"))
    one_error(run(FIXTURE, "--out", "out", "--push-to", "org/public", **OWNER), "is public")
    hub.uploads.always_public = True
    one_error(run(FIXTURE, "--out", "out", "--push-to", "org/new", **OWNER), "org/new is public")
    assert not (tmp_path / "out").exists()
    assert not hub.log.select("storage")


def _empty(folder: Path) -> Path:
    folder.mkdir()
    (folder / ".gitattributes").write_text("")
    return folder


def test_what_is_not_ours_is_not_overwritten(hub: Hub, run: Run) -> None:
    done = run(FIXTURE, "--out", "out", "--push-to", "org/private", **OWNER)
    one_error(done, "org/private holds config.json and no gatenorm.json")


@pytest.mark.parametrize(
    ("repository", "environment", "says"),
    [
        ("org/new", {}, "log in with `hf auth login`"),
        ("org/new", {"HF_TOKEN": "hf_stranger"}, "wants a token that may write to org/new"),
        ("other/new", {"HF_TOKEN": "hf_secret"}, "your token may not write to other/new"),
        ("new", {"HF_TOKEN": "hf_secret"}, "new is not a repository on the Hub; give org/name"),
        ("org/new@main", {"HF_TOKEN": "hf_secret"}, "org/new@main is not a repository"),
        ("org/new", {"HF_TOKEN": "hf_secret", "HF_HUB_OFFLINE": "1"}, "HF_HUB_OFFLINE is set"),
        ("org/new", {"HF_TOKEN": "hf_secret", "HF_ENDPOINT": "http://127.0.0.1:9"}, "is not reached"),
    ],
)
def test_what_won_t_do_is_told_before_anything_is_written(
    hub: Hub, run: Run, tmp_path: Path, repository: str, environment: dict[str, str], says: str
) -> None:
    one_error(run(FIXTURE, "--out", "out", "--push-to", repository, **environment), says)
    assert not (tmp_path / "out").exists()
    assert not [name for name in hub.repositories if name.endswith("/new")]


def test_a_damaged_output_is_not_uploaded(hub: Hub, run: Run, tmp_path: Path) -> None:
    run(FIXTURE, "--out", "out", "--quiet")
    (tmp_path / "out/tokenizer.json").write_text("{}")
    one_error(run("push", "out", "org/new", **OWNER), "tokenizer.json")
    assert "org/new" not in hub.repositories


@pytest.mark.slow
def test_files_of_others_in_the_folder_end_the_upload(hub: Hub, run: Run, tmp_path: Path) -> None:
    run(FIXTURE, "--out", "out", "--quiet")
    (tmp_path / "out/notes.txt").write_text("mine")
    one_error(run("push", "out", "org/new", **OWNER), "notes.txt does not belong here")
    assert "org/new" not in hub.repositories


def test_dry_run_and_upload_exclude_each_other(run: Run) -> None:
    assert run(FIXTURE, "--dry-run", "--push-to", "org/new").returncode == 2


@pytest.mark.slow
def test_the_uploaded_model_is_the_output(hub: Hub, run: Run, tmp_path: Path) -> None:
    """Read back from the Hub as any other model, it scores as it does on disk."""
    run(FIXTURE, "--out", "out", "--format", "zeroed", "--push-to", "org/new", "--quiet", **OWNER)
    there = json.loads(run("score", "org/new", "--json", **OWNER).stdout)
    here = json.loads(run("score", "out", "--json").stdout)
    assert there["layers"] == here["layers"]
    shutil.rmtree(tmp_path / "out")
    assert contents(pushed(hub, "org/new"))
