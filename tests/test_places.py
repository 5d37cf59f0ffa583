"""Places where an output can't go, or a file can't be read: names, mounts, other users' folders, a full disk."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

import gatenorm_stream
from gatenorm_stream.errors import CheckpointError, OutputError, PictureError, PlanError, VerificationError
from gatenorm_stream.names import is_safe
from gatenorm_stream.planning.plan import LONGEST_TEXT, plan_from_json, unscored
from gatenorm_stream.report.picture import score_picture
from gatenorm_stream.report.plot import plot
from gatenorm_stream.sources.local import LocalSource
from gatenorm_stream.verifying.output import read_output
from gatenorm_stream.verifying.trust import foreign_code
from gatenorm_stream.writing.partial import open_partial
from gatenorm_stream.writing.record import FileDigest, read_record, render_record
from gatenorm_stream.writing.recovery import recover
from tests.checkpoints import llama_config, llama_shapes, random_tensors, write_checkpoint
from tests.conftest import COMMAND, Run

NOBODY = 65534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")


@pytest.fixture
def llama(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "llama", random_tensors(llama_shapes()), llama_config())


@pytest.fixture
def output(llama: Path, tmp_path: Path) -> Path:
    prune(llama, tmp_path / "output")
    return tmp_path / "output"


def prune(source: Path, out: Path, *, force: bool = False) -> None:
    gatenorm_stream.prune(gatenorm_stream.plan(source, layers=[1]), out, threads=1, force=force)


@contextmanager
def mounted(folder: Path, place: Path) -> Iterator[None]:
    place.mkdir()
    mount = ["mount", "--bind", str(folder), str(place)]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no right to mount")
    try:
        yield
    finally:
        subprocess.run(["umount", place], check=True)


@contextmanager
def as_nobody() -> Iterator[None]:
    os.setresuid(NOBODY, NOBODY, 0)
    try:
        yield
    finally:
        os.setresuid(0, 0, 0)


@pytest.mark.parametrize("name", ["", ".", "/", "..", "sub/.."])
def test_what_is_no_name_for_an_output(
    llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for force in (False, True):
        with pytest.raises(OutputError, match="is no name for an output"):
            prune(llama, Path(name), force=force)


def test_a_damaged_output_that_is_here(output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(output)
    gatenorm_stream.verify(".")
    Path("config.json").write_text("{}")
    with pytest.raises(VerificationError, match="config.json is"):
        gatenorm_stream.verify(".")


def test_an_empty_directory_where_something_is_mounted(llama: Path, tmp_path: Path) -> None:
    """Told before all is written: it can't be renamed over."""
    (tmp_path / "disk").mkdir()
    with mounted(tmp_path / "disk", tmp_path / "place"):
        with pytest.raises(OutputError, match="choose a directory below it"):
            prune(llama, tmp_path / "place")
        assert not (tmp_path / "place.partial").exists()
        prune(llama, tmp_path / "place" / "out")


def test_a_source_that_is_mounted_twice(llama: Path, tmp_path: Path) -> None:
    with mounted(llama, tmp_path / "again"):
        with pytest.raises(OutputError, match="is inside the source"):
            prune(llama, tmp_path / "again" / "out")
        with pytest.raises(OutputError, match="is inside the source"):
            prune(tmp_path / "again", llama / "sub" / "out")


def test_a_link_is_not_said_to_be_a_file(llama: Path, tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "out").symlink_to("disk")
    with pytest.raises(OutputError, match="is a link"):
        prune(llama, tmp_path / "out")


@as_root
def test_what_someone_else_put_beside_an_output_is_not_finished(output: Path, tmp_path: Path) -> None:
    """It looks like what a killed run left; finishing that one gives the output its permissions again."""
    theirs = tmp_path / "output.replaced-01234567"
    theirs.mkdir()
    (theirs / ".gatenorm-journal").write_text("")
    for path in (theirs, theirs / ".gatenorm-journal"):
        os.chown(path, NOBODY, NOBODY)
    output.chmod(0o700)
    recover(output)
    assert output.stat().st_mode & 0o777 == 0o700
    assert (theirs / ".gatenorm-journal").exists()


@as_root
def test_a_partial_that_someone_else_makes_at_the_same_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mkdir = os.mkdir

    def made_just_before(path: str, mode: int = 0o777, *, dir_fd: int | None = None) -> None:
        mkdir(tmp_path / path, 0o700)
        os.chown(tmp_path / path, NOBODY, NOBODY)
        mkdir(path, mode, dir_fd=dir_fd)

    monkeypatch.setattr(os, "mkdir", made_just_before)
    with pytest.raises(OutputError, match="belongs to another user"), open_partial(tmp_path / "out"):
        pass


@as_root
def test_folders_that_can_not_be_listed_are_named(llama: Path, output: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:  # others can't enter pytest's
        os.chmod(folder, 0o755)
        source, pruned = (Path(shutil.copytree(root, Path(folder) / root.name)) for root in (llama, output))
        for root in (source, pruned):
            (root / "sub").mkdir(0o700)
            (root / "sub" / "LICENSE").write_text("x")
        (source / "far").symlink_to("sub/LICENSE")
        with as_nobody():
            assert LocalSource(source).apart() == {
                "far": "a link that can't be followed",
                "sub": "a folder that can't be read",
            }
            with pytest.raises(VerificationError, match="sub does not belong here"):
                gatenorm_stream.verify(pruned)
        source.chmod(0o711)
        with as_nobody(), pytest.raises(CheckpointError, match="can't be listed"):
            LocalSource(source).names()


@as_root
@pytest.mark.parametrize("shared", [0o1777, 0o777])
def test_an_output_of_another_user_is_refused_before_it_is_written(llama: Path, output: Path, shared: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        place = Path(folder) / "shared"
        place.mkdir()
        place.chmod(shared)
        source, theirs = (Path(shutil.copytree(p, Path(folder) / "shared" / p.name)) for p in (llama, output))
        with as_nobody(), pytest.raises(OutputError, match="may not be replaced"):
            prune(source, theirs, force=True)
        assert sorted(p.name for p in place.iterdir()) == ["llama", "output"]


def test_what_the_system_refuses_is_one_line_with_a_next_step(run: Run, llama: Path) -> None:
    done = run("explain", "x" * 300)
    assert (done.returncode, done.stderr) == (
        1,
        f"error: {'x' * 300} can't be used: File name too long; fix that, or give another path\n",
    )


def test_a_current_directory_that_is_gone(run: Run, llama: Path, tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    command = f'cd here && rmdir ../here && exec "{COMMAND}" "{llama}" --out out --layers 1'
    done = subprocess.run(["sh", "-c", command], cwd=tmp_path, capture_output=True, text=True)
    assert done.stderr == "error: the current directory is gone; change to another, then run again\n"


@pytest.mark.parametrize("source", ["x" * 5000, "/proc/1/root/model"])
def test_a_source_that_can_not_be_looked_for_does_not_undo_a_verification(
    run: Run, output: Path, source: str
) -> None:
    plan, files = read_record(output)
    (output / "gatenorm.json").write_text(render_record(replace(plan, source=source), files))
    done = run("verify", output)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("field", ["source", "revision", "tool_version", "scores_of"])
def test_texts_of_a_plan_are_bounded(output: Path, field: str) -> None:
    plan, _ = read_record(output)
    with pytest.raises(PlanError, match=f"{field} must be a text of at most"):
        plan_from_json(replace(plan, **{field: "x" * (LONGEST_TEXT + 1)}).to_json(), "it")  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["x" * 256, "é" * 128, "/".join(["x" * 200] * 6), "/".join("x" * 33)])
def test_names_that_no_file_system_takes(name: str) -> None:
    assert not is_safe(name)
    assert is_safe(name[:59])


def test_our_own_file_is_not_read_beyond_its_length(output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A gigabyte of holes in its place, with a digest that fits, was read into memory."""
    name = "modeling_gatenorm.py"
    with open(output / name, "wb") as file:
        file.truncate(1 << 40)
    plan, files = read_record(output)
    forged = {**files, name: FileDigest(1 << 40, "0" * 64)}
    (output / "gatenorm.json").write_text(render_record(plan, forged))
    assert any("is not the file of this release" in line for line in foreign_code(read_output(output)))


@pytest.mark.parametrize("there", [False, True])
def test_a_picture_is_whole_or_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: bool) -> None:
    path = tmp_path / "pictures" / "scores.svg"
    path.parent.mkdir()
    if there:
        path.write_text("earlier")

    def full(*_: object) -> bool:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("gatenorm_stream.folder.sync_file", full)
    with pytest.raises(PictureError, match="No space left"):
        plot(score_picture("m", None, unscored([0, 1]), (1,)), path, force=there)
    assert [p.name for p in path.parent.iterdir()] == (["scores.svg"] if there else [])
    assert not there or path.read_text() == "earlier"
