"""Renames that replace nothing, and exchanges, by the C library, by the kernel's number, and without either."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from pathlib import Path

import pytest

from gatenorm_stream.folder import Folder, open_folder
from gatenorm_stream.writing import renames

WAYS = ["function", "number", "neither"]
known = pytest.mark.skipif(platform.machine() not in renames.NUMBERS, reason="another processor's number")


@pytest.fixture(params=[pytest.param(way, marks=known if way == "number" else ()) for way in WAYS])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param != "function":
        monkeypatch.setattr(renames, "FUNCTION", "no_such_function")
    if request.param == "neither":
        monkeypatch.setattr(renames, "NUMBERS", {})
    return str(request.param)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Folder]:
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "which").write_text(name)
    with open_folder(tmp_path) as opened:
        yield opened


def held(folder: Folder) -> dict[str, str]:
    return {p.name: (p / "which").read_text() for p in folder.path.iterdir()}


def test_two_names_are_exchanged_or_nothing_is_done(folder: Folder, way: str) -> None:
    exchanged = renames.exchange(folder, "old", folder, "new")
    assert exchanged == (way != "neither")
    assert held(folder) == ({"old": "new", "new": "old"} if exchanged else {"old": "old", "new": "new"})


def test_a_name_that_is_not_there_is_not_exchanged(folder: Folder, way: str) -> None:
    if way != "neither":
        with pytest.raises(FileNotFoundError, match="there"):
            renames.exchange(folder, "new", folder, "there")
    assert held(folder) == {"old": "old", "new": "new"}


def test_nothing_is_replaced(folder: Folder, way: str) -> None:
    with pytest.raises(FileExistsError, match="old"):
        renames.move(folder, "new", folder, "old")
    (folder.path / "empty").mkdir()
    renames.move(folder, "new", folder, "empty")
    assert held(folder) == {"old": "old", "empty": "new"}
