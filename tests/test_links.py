"""Models where people have them: links in plain folders, subfolders and roots of the Hub cache."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from gatenorm_stream.checkpoint.safetensors import open_checkpoint
from gatenorm_stream.errors import CheckpointError
from gatenorm_stream.sources.open import open_source
from tests.conftest import Run

COMMIT, OTHER = "a" * 40, "b" * 40
BLOB = "0123456789abcdef" * 4

FOLLOWED = {
    "of the same kind": ("tokenizer.json", "shared/tok.json"),
    "of the same name": ("tokenizer.model", "shared/tokenizer.model"),
    "kind in capitals": ("tokenizer.json", "shared/TOKENIZER.JSON"),
    "a blob of the Hub cache": ("tokenizer.json", f".cache/huggingface/hub/models--o--n/blobs/{BLOB[:40]}"),
    "a large blob": ("tokenizer.json", f".cache/huggingface/hub/models--o--n/blobs/{BLOB}"),
    "a blob of any name": ("tokenizer.json", "hub/models--o--n/blobs/x"),
    "Ollama": ("tokenizer.json", f".ollama/models/blobs/sha256-{BLOB}"),
    "git-annex": ("tokenizer.json", f".git/annex/SHA256E-s12--{BLOB}.json"),
    "without a kind": ("LICENSE", "shared/LICENSE"),
    "further down": ("sub/x.json", "shared/x.json"),
}
NOT_FOLLOWED = {
    "a key": ("tokenizer.json", ".ssh/id_rsa", "may be a secret"),
    "a token": ("tokenizer.json", ".cache/huggingface/token", "may be a secret"),
    "hidden": ("tokenizer.json", ".config/app.json", "may be a secret"),
    "credentials": ("tokenizer.json", "aws/credentials.json", "may be a secret"),
    "settings": ("tokenizer.json", "app/.env", "may be a secret"),
    "another kind": ("tokenizer.json", "mail/inbox.mbox", "a file of another kind"),
    "no kind": ("tokenizer.json", "inbox", "a file of another kind"),
    "another name where no kind is told": ("NOTICE", "etc/gshadow", "a file of another kind"),
    "a pem": ("cert.pem", "x/server.pem", "may be a secret"),
}


def linked(tmp_path: Path, name: str, target: str) -> Path:
    folder = tmp_path / "model"
    (folder / name).parent.mkdir(parents=True)
    there = tmp_path / "home" / target
    there.parent.mkdir(parents=True)
    there.write_text("held")
    (folder / name).symlink_to(there)
    return folder


@pytest.mark.parametrize(("name", "target"), FOLLOWED.values(), ids=FOLLOWED.keys())
def test_links_that_are_followed(tmp_path: Path, name: str, target: str) -> None:
    source = open_source(linked(tmp_path, name, target))
    assert source.names() == (name,)
    assert source.apart() == {}
    file = source.open(name)
    assert (file.size, file.path and file.path.read_text()) == (4, "held")
    source.close()


@pytest.mark.parametrize(("name", "target", "why"), NOT_FOLLOWED.values(), ids=NOT_FOLLOWED.keys())
def test_links_that_are_not(tmp_path: Path, name: str, target: str, why: str) -> None:
    source = open_source(linked(tmp_path, name, target))
    assert source.names() == ()
    assert why in source.apart()[name]
    with pytest.raises(CheckpointError, match="leads out of .* refused"):
        source.open(name)


def test_what_is_no_file_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "elsewhere").mkdir()
    os.mkfifo(folder / "pipe.json")
    for name, target in (
        ("dangling", "nowhere"),
        ("circle", "circle"),
        ("zero", "/dev/zero"),
        ("far", "../elsewhere"),
    ):
        (folder / name).symlink_to(target)
    (folder / "config.json:Zone.Identifier").write_text("[ZoneTransfer]")
    source = open_source(folder)
    assert source.names() == ()
    assert source.apart() == {
        "pipe.json": "not a regular file",
        "dangling": "a link to nothing",
        "circle": "a link that can't be followed",
        "zero": "not a regular file",
        "far": "a link to a folder",
        "config.json:Zone.Identifier": "no name for a file of an output",
    }


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_file_that_is_there_is_not_said_to_be_missing(tmp_path: Path, name: str) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / name).unlink(missing_ok=True)
    os.mkfifo(tmp_path / name)
    with pytest.raises(CheckpointError, match=f"{name} is not a regular file; put the file itself there"):
        open_checkpoint(open_source(tmp_path))


def test_only_links_are_resolved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of 50,000 files took 17 s to be refused."""
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "x.json").write_text("{}")
    source = open_source(tmp_path)
    monkeypatch.delattr(Path, "resolve")
    assert source.names() == ("sub/x.json",)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_link_to_a_file_of_another_user(tmp_path: Path) -> None:
    folder = linked(tmp_path, "tokenizer.json", "shared/tok.json")
    os.chown(tmp_path / "home/shared/tok.json", 12345, -1)
    source = open_source(folder)
    assert source.apart() == {"tokenizer.json": "a link to a file of another user"}
    os.chown(folder / "tokenizer.json", 12345, -1, follow_symlinks=False)
    assert source.names() == ("tokenizer.json",)


def test_a_link_is_followed_and_named(run: Run, llama: Path, tmp_path: Path) -> None:
    (llama / "tokenizer.json").rename(tmp_path / "shared.json")
    (llama / "tokenizer.json").symlink_to(tmp_path / "shared.json")
    shard = llama / "model-00002-of-00002.safetensors"
    shard.rename(tmp_path / "elsewhere.safetensors")
    shard.symlink_to(tmp_path / "elsewhere.safetensors")
    done = run(llama, "--out", "out", "--layers", "1")
    assert done.returncode == 0, done.stderr
    assert f"tokenizer.json (a link to {tmp_path / 'shared.json'})" in " ".join(done.stdout.split())
    assert (tmp_path / "out/tokenizer.json").read_text() == (tmp_path / "shared.json").read_text()
    assert not (tmp_path / "out/tokenizer.json").is_symlink()
    assert run("verify", "out", "--against", llama).returncode == 0


def cache(tmp_path: Path, llama: Path, below: str = "", commits: tuple[str, ...] = (COMMIT,)) -> Path:
    """The Hub cache's folder of a model, as hf download leaves it."""
    root = tmp_path / "hub/models--org--name"
    (root / "blobs").mkdir(parents=True)
    for commit in commits:
        folder = root / "snapshots" / commit / below
        folder.mkdir(parents=True)
        for path in llama.iterdir():
            blob = root / "blobs" / f"{commit[0]}-{path.name}"
            shutil.copy(path, blob)
            (folder / path.name).symlink_to(os.path.relpath(blob, folder))
    return root


PLACES = {
    "the snapshot": ("", "snapshots/{commit}", ()),
    "its subfolder": ("checkpoint-500", "snapshots/{commit}/checkpoint-500", ()),
    "two deep": ("a/b", "snapshots/{commit}/a/b", ()),
    "the root": ("", "", ()),
    "the root, with a slash": ("", "./", ()),
    "its snapshots": ("", "snapshots", ()),
    "the root and a revision": ("", "", ("--revision", COMMIT)),
    "the root and the beginning of one": ("", "", ("--revision", COMMIT[:7])),
}


@pytest.mark.parametrize(("below", "given", "options"), PLACES.values(), ids=PLACES.keys())
def test_places_in_the_hub_cache(
    run: Run, llama: Path, tmp_path: Path, below: str, given: str, options: tuple[str, ...]
) -> None:
    root = cache(tmp_path, llama, below)
    done = run(f"{root}/{given.format(commit=COMMIT)}", "--out", "out", "--layers", "1", *options)
    assert done.returncode == 0, done.stderr
    assert "left out" not in done.stdout
    assert "(a link to" not in done.stdout
    assert run("verify", "out", "--against", llama).returncode == 0


def test_the_root_with_several_snapshots(run: Run, llama: Path, tmp_path: Path) -> None:
    root = cache(tmp_path, llama, commits=(COMMIT, OTHER))
    refused = run("score", root)
    assert refused.returncode == 1
    assert f"give one: {root}/snapshots/{COMMIT}, {root}/snapshots/{OTHER}" in refused.stderr
    (root / "refs").mkdir()
    (root / "refs/main").write_text(OTHER)
    assert run("score", root).returncode == 0
    assert f"snapshots/{OTHER}" in run("score", root, "--json").stdout
    assert f"snapshots/{COMMIT}" in run("score", root, "--json", "--revision", COMMIT[:6]).stdout
    assert "v9 is not among them" in run("score", root, "--revision", "v9").stderr


@pytest.mark.parametrize("ref", ["nothing-there", "", "../../..", "\xff", "a" * 500])
def test_a_root_whose_ref_leads_nowhere(run: Run, llama: Path, tmp_path: Path, ref: str) -> None:
    root = cache(tmp_path, llama)
    (root / "refs").mkdir()
    (root / "refs/main").write_bytes(ref.encode("latin-1"))
    done = run("score", root)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert f"give one: {root}/snapshots/{COMMIT}" in done.stderr


HOMES = (
    "--out=~/out",
    "--out ~/out",
    "-o~/out",
    "-o ~/out",
    "--out=~/sub/../out",
    "--out=~/out --plan=~/plan.json",
    "--out=~/out --plan ~/plan.json",
    "--out=~//out",
)


@pytest.mark.parametrize("words", HOMES)
def test_home(run: Run, llama: Path, tmp_path: Path, words: str) -> None:
    home = tmp_path / "home"
    (home / "sub").mkdir(parents=True)
    shutil.move(llama, home / "m")
    (home / "plan.json").write_text(run(home / "m", "--dry-run", "--json").stdout)
    done = run("~/m", *words.split(), HOME=str(home))
    assert done.returncode == 0, done.stderr
    assert (home / "out/config.json").is_file()
    assert not (tmp_path / "~").exists()


def test_a_folder_of_that_name(run: Run, llama: Path, tmp_path: Path) -> None:
    assert run(llama, "--out=./~/out", HOME="/nowhere").returncode == 0
    assert (tmp_path / "~/out/config.json").is_file()
