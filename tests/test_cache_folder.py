"""What is written in the Hub cache goes through no link, and what is read there lies there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from gatenorm_stream.errors import OutputError
from gatenorm_stream.sources.hub.address import HubAddress
from gatenorm_stream.sources.hub.cache import Cache
from gatenorm_stream.sources.hub.cache_folder import open_cache
from gatenorm_stream.sources.hub.listing import Entry
from gatenorm_stream.sources.hub.source import HubSource
from gatenorm_stream.sources.links import named_commit
from gatenorm_stream.sources.local_file import LocalFile
from tests.fuzz.target import Tree, tree

COMMIT, BLOB, HOME = "c" * 40, "b" * 40, "models--org--m"
ENTRY = Entry("sub/config.json", 4, BLOB, None)
FOLDERS = (
    f"{HOME}/blobs",
    f"{HOME}/snapshots",
    f"{HOME}/snapshots/{COMMIT}",
    f"{HOME}/refs",
    ".locks",
    f".locks/{HOME}",
)
LOCK = f".locks/{HOME}/{BLOB}.lock"
POINTER = f"{HOME}/snapshots/{COMMIT}/{ENTRY.name}"


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def mine(tmp_path: Path) -> Iterator[Path]:
    """What must be as it was when the test ends."""
    folder = tmp_path / "mine" / "folder"
    folder.mkdir(parents=True)
    (folder.parent / "file").write_bytes(b"mine")
    before = tree(folder.parent)
    yield folder.parent
    assert tree(folder.parent) == before


def write(cache: Path) -> Tree:
    """All that a run writes there, beside a blob's content: what is there then."""
    with open_cache(cache / HOME) as folder, folder.locked(ENTRY, pytest.fail):
        folder.blobs.write(BLOB, b"blob")
        assert folder.has(ENTRY)
        folder.point(COMMIT, ENTRY)
        folder.name_commit("main", COMMIT)
    return tree(cache)


def plant(path: Path, target: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(target)


def test_the_layout_of_huggingface_hub(cache: Path) -> None:
    found = write(cache)
    assert found[POINTER] == b"link ../../../blobs/" + BLOB.encode()
    assert (cache / POINTER).read_bytes() == b"blob"
    assert found[f"{HOME}/refs/main"] == COMMIT.encode()
    assert write(cache) == found


@pytest.mark.parametrize("name", FOLDERS)
def test_no_link_is_taken_for_a_folder(cache: Path, mine: Path, name: str) -> None:
    plant(cache / name, mine / "folder")
    with pytest.raises(OutputError, match=f"{name} is not a directory, and nothing is written there; delete it"):
        write(cache)


@pytest.mark.parametrize("target", ["file", "new"])
def test_no_link_is_taken_for_a_lock(cache: Path, mine: Path, target: str) -> None:
    plant(cache / LOCK, mine / target)
    with pytest.raises(OutputError, match=r"\.lock is a link, and nothing is written there"):
        write(cache)


def test_a_pipe_for_a_lock_is_not_waited_for(cache: Path) -> None:
    (cache / LOCK).parent.mkdir(parents=True)
    os.mkfifo(cache / LOCK)
    with pytest.raises(OutputError, match=r"\.lock is not a regular file"):
        write(cache)


@pytest.mark.parametrize("name", [POINTER, f"{HOME}/refs/main", f"{HOME}/refs/main.PID.tmp"])
def test_a_link_where_a_file_comes_is_replaced(cache: Path, mine: Path, name: str) -> None:
    plant(cache / name.replace("PID", str(os.getpid())), mine / "file")
    write(cache)
    assert (cache / POINTER).read_bytes() == b"blob"
    assert (cache / HOME / "refs" / "main").read_text() == COMMIT


@pytest.mark.parametrize("target", ["pipe", "/dev/zero", "mine/file"])
def test_what_is_no_file_of_the_cache_names_no_commit(cache: Path, mine: Path, tmp_path: Path, target: str) -> None:
    write(cache)
    assert named_commit(cache / HOME, None) == COMMIT
    os.mkfifo(tmp_path / "pipe")
    (cache / HOME / "refs" / "main").unlink()
    plant(cache / HOME / "refs" / "main", tmp_path / target)
    assert named_commit(cache / HOME, None) is None


def test_a_link_is_no_blob(cache: Path, mine: Path) -> None:
    plant(cache / HOME / "blobs" / BLOB, mine / "file")
    with open_cache(cache / HOME) as folder:
        assert not folder.has(ENTRY)


def test_the_folder_of_a_model_may_be_on_another_disk(cache: Path, tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    plant(cache / HOME, tmp_path / "disk")
    write(cache)
    assert (tmp_path / "disk" / "refs" / "main").read_text() == COMMIT


@pytest.mark.parametrize("name", ["a/" * 31 + "b", "a/" * 32 + "b"])
def test_a_name_that_lies_deep_is_not_held(name: str) -> None:
    held = Cache(HubAddress("org/m"), COMMIT, print).can_hold(Entry(name, 4, BLOB, None))
    assert held == (name.count("/") < 32)


@pytest.mark.parametrize(
    ("target", "read"), [("cache/blob", True), ("mine/.secret/config.json", False), ("pipe", False)]
)
def test_what_a_snapshot_leads_to_is_read_if_it_is_a_file_of_the_cache(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str, read: bool
) -> None:
    """Of the size that the Hub says, which anybody may say."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    write(cache)
    (tmp_path / "mine" / ".secret").mkdir(parents=True)
    (tmp_path / "mine" / ".secret" / "config.json").write_bytes(b"mine")
    os.mkfifo(tmp_path / "pipe")
    if target != "cache/blob":
        (cache / POINTER).unlink()
        (cache / POINTER).symlink_to(tmp_path / target)
    source = HubSource(HubAddress("org/m"), COMMIT, {ENTRY.name: ENTRY}, 1, print)
    assert isinstance(source.open(ENTRY.name), LocalFile) == read
    source.close()
