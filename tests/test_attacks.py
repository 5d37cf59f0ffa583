"""Attacks by what lies where something is written, read or replaced: links, pipes, devices, others' files, races.

Each must be refused in one line or ignored, and change nothing that is not ours.
"""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import gatenorm_stream
from gatenorm_stream.disk import boot_id
from gatenorm_stream.errors import CheckpointError, GateNormError, OutputError, PictureError, VerificationError
from gatenorm_stream.folder import open_folder, open_through_no_link
from gatenorm_stream.planning.layout import Layout
from gatenorm_stream.report.plot import check_plot
from gatenorm_stream.sources import local
from gatenorm_stream.sources.local import LocalSource
from gatenorm_stream.sources.local_file import LocalFile
from gatenorm_stream.writing import write
from gatenorm_stream.writing.journal import Journal, line_of, read_lines
from gatenorm_stream.writing.partial import open_partial
from gatenorm_stream.writing.renames import move
from tests.checkpoints import llama_config, llama_shapes, random_tensors, write_checkpoint
from tests.conftest import Run
from tests.gguf_files import shapes, tensors, write_gguf
from tests.test_interruption import cut_off

SHARD = "model-00001-of-00002.safetensors"
JOURNAL, RECORD, SPOOL = ".gatenorm-journal", "gatenorm.json", ".gatenorm-spool"

State = dict[str, tuple[int, bytes]]


def state(folder: Path) -> State:
    """All files below, with inode and content."""
    return {
        p.relative_to(folder).as_posix(): (p.lstat().st_ino, os.fsencode(os.readlink(p)) if p.is_symlink() else
                                           p.read_bytes() if p.is_file() else b"")
        for p in folder.rglob("*")
    }  # fmt: skip


def prune(source: Path, out: Path, **options: Any) -> None:
    gatenorm_stream.prune(gatenorm_stream.plan(source, layers=[1]), out, threads=1, **options)


def replaced(path: Path) -> Path:
    """Free for something else."""
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    return path


def made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def hard_linked(name: str) -> Callable[[Path, Path], object]:
    return lambda partial, mine: os.link(mine / "thesis", replaced(partial / name))


def linked(name: str, to: str = "thesis") -> Callable[[Path, Path], object]:
    return lambda partial, mine: replaced(partial / name).symlink_to(mine / to)


PLANTED: dict[str, Callable[[Path, Path], object]] = {
    "the journal is a link": linked(JOURNAL),
    "the journal has another name": hard_linked(JOURNAL),
    "the journal is a pipe": lambda partial, mine: os.mkfifo(replaced(partial / JOURNAL)),
    "the journal is a folder": lambda partial, mine: replaced(partial / JOURNAL).mkdir(),
    "the record is a link": linked(RECORD),
    "the record has another name": hard_linked(RECORD),
    "the record is a pipe": lambda partial, mine: os.mkfifo(partial / RECORD),
    "a shard is a link": linked(SHARD),
    "a shard is a link to nothing": linked(SHARD, "new"),
    "a shard has another name": hard_linked(SHARD),
    "a shard is a pipe": lambda partial, mine: os.mkfifo(replaced(partial / SHARD)),
    "a shard is a folder": lambda partial, mine: replaced(partial / SHARD).mkdir(),
    "the spool is a link": linked(SPOOL, "folder"),
    "in the spool is a link": lambda partial, mine: linked("0123")(made(partial / SPOOL), mine),
    "a subfolder is a link": linked("chat_templates", "folder"),
    "something deep": lambda partial, mine: os.makedirs(partial / "/".join("d" * 40)),
}


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """What the user keeps elsewhere."""
    (tmp_path / "mine" / "folder").mkdir(parents=True)
    (tmp_path / "mine" / "thesis").write_text("mine")
    (tmp_path / "mine" / "folder" / "tools.jinja").write_text("mine")
    return tmp_path / "mine"


@pytest.fixture
def cut(llama: Path, tmp_path: Path) -> Path:
    """The `.partial` of a run that was cut off, whose source has a subfolder."""
    (llama / "chat_templates").mkdir()
    (llama / "chat_templates" / "tools.jinja").write_text("travels")
    return cut_off(llama, tmp_path / "out")


@pytest.mark.parametrize("planted", PLANTED)
def test_nothing_in_a_partial_is_written_through(
    llama: Path, cut: Path, tmp_path: Path, mine: Path, planted: str
) -> None:
    PLANTED[planted](cut, mine)
    before = state(mine)
    with pytest.raises(OutputError) as refused:
        prune(llama, tmp_path / "out")
    assert "\n" not in str(refused.value)
    assert str(cut) in str(refused.value)
    assert state(mine) == before
    assert not (tmp_path / "out").exists()
    prune(llama, tmp_path / "out", restart=True)
    assert state(mine) == before
    gatenorm_stream.verify(tmp_path / "out", against=llama)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make devices")
def test_a_device_in_a_partial_is_not_read(llama: Path, cut: Path, tmp_path: Path) -> None:
    for name in (JOURNAL, SHARD):
        with suppress(PermissionError):
            os.mknod(replaced(cut / name), 0o020666, os.makedev(1, 5))  # /dev/zero
            with pytest.raises(OutputError, match="is not a regular file"):
                prune(llama, tmp_path / "out")


@pytest.mark.parametrize("planted", ["a link", "another name", "a pipe", "a folder that is a link"])
def test_what_is_put_there_while_it_is_written(llama: Path, tmp_path: Path, mine: Path, planted: str) -> None:
    (llama / "chat_templates").mkdir()
    (llama / "chat_templates" / "tools.jinja").write_text("travels")
    last, partial, before = "chat_templates", tmp_path / "out.partial", state(mine)
    plant = {
        "a link": lambda: (partial / "tokenizer.json").symlink_to(mine / "thesis"),
        "another name": lambda: os.link(mine / "thesis", partial / "tokenizer.json"),
        "a pipe": lambda: os.mkfifo(partial / "tokenizer.json"),
        "a folder that is a link": lambda: (partial / last).symlink_to(mine / "folder"),
    }[planted]

    def act(what: str, done: int, total: int, file: str) -> None:
        if file == SHARD:
            with suppress(FileExistsError):
                plant()

    with pytest.raises(OutputError, match=r"is (a link|a file that|not a regular|not a directory)"):
        prune(llama, tmp_path / "out", progress=act)
    assert state(mine) == before


def test_a_partial_that_is_swapped_for_a_link_while_it_is_written(llama: Path, tmp_path: Path, mine: Path) -> None:
    partial, before = tmp_path / "out.partial", state(mine)

    def swap(what: str, done: int, total: int, file: str) -> None:
        if file == SHARD and not partial.is_symlink():
            partial.rename(tmp_path / "moved")
            partial.symlink_to(mine)

    with pytest.raises((OutputError, GateNormError)):
        prune(llama, tmp_path / "out", progress=swap)
    assert state(mine) == before
    assert not (tmp_path / "out").exists()


def test_a_partial_is_private_and_the_output_is_not(llama: Path, tmp_path: Path) -> None:
    modes = []
    prune(llama, tmp_path / "a", progress=lambda *_: modes.append((tmp_path / "a.partial").stat().st_mode & 0o777))
    assert set(modes) == {0o700}
    plain = tmp_path / "plain"
    plain.mkdir()
    assert (tmp_path / "a").stat().st_mode == plain.stat().st_mode


def test_a_partial_that_others_may_write_to(llama: Path, cut: Path, tmp_path: Path) -> None:
    cut.chmod(0o777)
    with pytest.raises(OutputError, match="others may write to"):
        prune(llama, tmp_path / "out")
    assert cut.stat().st_mode & 0o777 == 0o777
    prune(llama, tmp_path / "out", restart=True)
    (tmp_path / "b.partial").mkdir()
    (tmp_path / "b.partial").chmod(0o777)
    with open_partial(tmp_path / "b"):
        assert (tmp_path / "b.partial").stat().st_mode & 0o777 == 0o700


STRANGE: dict[str, dict[str, Any]] = {
    "as it was": {},
    "a negative part": {"written": -1},
    "more than there is": {"written": 1 << 60},
    "true": {"written": True},
    "a number that is a text": {"written": "3"},
    "another inode": {"inode": 1},
    "another ctime": {"ctime": 1},
    "no inode": {"inode": None},
    "another size": {"size": 3},
    "no digest": {"blake3": "x"},
    "no marks": {"marks": []},
    "odd marks": {"marks": ["../../etc"] * 3},
}


@pytest.mark.parametrize("strange", STRANGE)
def test_a_journal_is_not_believed_blindly(llama: Path, tmp_path: Path, strange: str) -> None:
    partial = cut_off(llama, tmp_path / "out")
    lines = read_lines((partial / JOURNAL).read_bytes().splitlines())
    (shard,) = [line for line in lines if line.get("name") == SHARD]
    content = (partial / SHARD).read_bytes()
    (partial / SHARD).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    shard["ctime"] = (partial / SHARD).stat().st_ctime_ns
    changed = {"name": SHARD, **STRANGE[strange]} if "written" in STRANGE[strange] else shard | STRANGE[strange]
    kept = [changed if line is shard else line for line in lines]
    (partial / JOURNAL).write_text("".join(map(line_of, kept)))
    prune(llama, tmp_path / "out")
    if strange == "as it was":  # the line that all others differ from is believed
        with pytest.raises(VerificationError):
            gatenorm_stream.verify(tmp_path / "out")
    else:
        gatenorm_stream.verify(tmp_path / "out", against=llama)


@pytest.mark.parametrize("name", ["chat_template.jinja", "folder/notes.txt"])
def test_what_was_put_into_a_partial_becomes_no_part_of_the_output(llama: Path, tmp_path: Path, name: str) -> None:
    stray = cut_off(llama, tmp_path / "out") / name
    stray.parent.mkdir(exist_ok=True)
    stray.write_text("mine")
    with pytest.raises(OutputError, match="was not left by this run"):
        prune(llama, tmp_path / "out")
    assert stray.read_text() == "mine"
    stray.rename(tmp_path / "kept")
    if "/" in name:
        stray.parent.rmdir()
    prune(llama, tmp_path / "out")
    gatenorm_stream.verify(tmp_path / "out", against=llama)


def test_a_line_of_the_journal_that_lost_a_digit_is_forgotten(llama: Path, tmp_path: Path) -> None:
    partial = cut_off(llama, tmp_path / "out")
    text = (partial / JOURNAL).read_text()
    (line,) = [line for line in text.splitlines() if SHARD in line]
    digest = json.loads(line)["blake3"]
    other = digest.translate(str.maketrans("01", "10"))
    (partial / JOURNAL).write_text(text.replace(line, line.replace(f'"{digest}"', f'"{other}"')))
    prune(llama, tmp_path / "out")
    gatenorm_stream.verify(tmp_path / "out", against=llama)


def test_a_finished_file_that_was_changed_since_is_written_anew(llama: Path, tmp_path: Path) -> None:
    """Its size and time of change are as before."""
    shard = cut_off(llama, tmp_path / "out") / SHARD
    found = shard.stat()
    shard.write_bytes(bytes(found.st_size))
    os.utime(shard, ns=(found.st_atime_ns, found.st_mtime_ns))
    prune(llama, tmp_path / "out")
    gatenorm_stream.verify(tmp_path / "out", against=llama)


def test_a_source_whose_time_was_set_back_is_not_continued(llama: Path, tmp_path: Path) -> None:
    cut_off(llama, tmp_path / "out")
    found = (llama / SHARD).stat()
    content = bytearray((llama / SHARD).read_bytes())
    content[-1] ^= 1
    (llama / SHARD).write_bytes(content)
    os.utime(llama / SHARD, ns=(found.st_atime_ns, found.st_mtime_ns))
    with pytest.raises(OutputError, match="--restart"):
        prune(llama, tmp_path / "out")


def test_after_a_failed_sync_only_what_was_synced_is_believed(tmp_path: Path) -> None:
    files = {"synced": (8, 0), "not": (8, 0)}
    with open_partial(tmp_path / "out") as partial:
        journal = Journal(partial, "x", files)
        for name in files:
            (partial.path / name).write_bytes(bytes(8))
        journal.add_part("synced", 4, None)
        journal.add_part("synced", 6, boot_id())
        journal.add_part("not", 4, boot_id())
        again = Journal(partial, "x", files)
        assert (again.written("synced"), again.written("not")) == (6, 4)
        journal.add_failure()
        again = Journal(partial, "x", files)
        assert (again.written("synced"), again.written("not")) == (0, 0)


@pytest.mark.parametrize("what", ["a.json", "sub"])
def test_a_link_that_is_put_there_after_the_check_is_found(
    tmp_path: Path, mine: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    root, name = tmp_path / "model", "sub/a.json" if what == "sub" else what
    (root / name).parent.mkdir(parents=True)
    (root / name).write_text("plain")
    (mine / "a.json").write_text("mine")

    def swap(target: Path) -> int:
        os.rename(root / what, root / "before")
        (root / what).symlink_to(mine if what == "sub" else mine / what)
        return open_through_no_link(target)

    monkeypatch.setattr(local, "open_through_no_link", swap)
    source = LocalSource(root)
    with pytest.raises(CheckpointError, match="changed while it was opened"):
        source.open(name)


def test_a_folder_that_is_a_link_is_not_followed(tmp_path: Path, mine: Path) -> None:
    """It came after the files were listed, where links to folders are left out."""
    (tmp_path / "model").mkdir()
    (mine / "a.json").write_text("mine")
    (tmp_path / "model" / "sub").symlink_to(mine)
    source = LocalSource(tmp_path / "model")
    with pytest.raises(CheckpointError, match="in a folder that is a link"):
        source.open("sub/a.json")


def test_a_folder_that_is_swapped_for_a_link_again_and_again(tmp_path: Path, mine: Path) -> None:
    root, stop = tmp_path / "model", threading.Event()
    (root / "sub").mkdir(parents=True)
    (root / "sub" / "a.txt").write_text("plain!")
    (mine / "a.txt").write_text("secret")
    (tmp_path / "other").symlink_to(mine)

    def swap() -> None:
        with open_folder(tmp_path) as here, open_folder(root) as there:
            while not stop.is_set():
                move(there, "sub", here, "aside")
                move(here, "other", there, "sub")
                move(there, "sub", here, "other")
                move(here, "aside", there, "sub")

    assert {b"plain!", *read_while(swap, stop, root, "sub/a.txt")} == {b"plain!"}


def test_a_file_that_is_swapped_for_a_link_to_a_secret_again_and_again(tmp_path: Path, mine: Path) -> None:
    root, stop = tmp_path / "model", threading.Event()
    root.mkdir()
    (mine / ".ssh").mkdir()
    (mine / ".ssh" / "id.json").write_text("secret")

    def swap() -> None:
        while not stop.is_set():
            (tmp_path / "next").symlink_to(mine / ".ssh" / "id.json")
            os.rename(tmp_path / "next", root / "a.json")
            (tmp_path / "next").write_text("plain!")
            os.rename(tmp_path / "next", root / "a.json")

    (root / "a.json").write_text("plain!")
    assert set(read_while(swap, stop, root, "a.json")) == {b"plain!"}


def read_while(swap: Callable[[], None], stop: threading.Event, root: Path, name: str) -> list[bytes]:
    """What 800 openings of a file give, as far as they are not refused, while `swap` is at it until `stop`."""
    swapping, read = threading.Thread(target=swap), list[bytes]()
    swapping.start()
    try:
        for _ in range(800):
            source = LocalSource(root)
            with suppress(CheckpointError):
                file = source.open(name)
                read.append(bytes(file.read(slice_of(file))))
            source.close()
    finally:
        stop.set()
        swapping.join()
    return read


def slice_of(file: LocalFile) -> Any:
    from gatenorm_stream.sources.ranges import ByteRange

    return ByteRange(0, file.size)


def edited(name: str, change: Callable[[bytes], bytes]) -> Callable[[Path, Path], object]:
    return lambda out, mine: (out / name).write_bytes(change((out / name).read_bytes()))


FOREIGN: dict[str, Callable[[Path, Path], object]] = {
    "a file": lambda out, mine: (out / "results.txt").write_text("mine"),
    "a hidden file": lambda out, mine: (out / ".notes").write_text("mine"),
    "a hidden folder": lambda out, mine: (made(out / ".git") / "HEAD").write_text("mine"),
    "an empty folder": lambda out, mine: (out / "empty").mkdir(),
    "a link": lambda out, mine: (out / "link").symlink_to(mine),
    "a pipe": lambda out, mine: os.mkfifo(out / "pipe"),
    "a shard that is a link": lambda out, mine: (out / SHARD).replace(mine / "x") and linked(SHARD, "x")(out, mine),
    "a config that was edited": edited("config.json", lambda text: text + b" "),
    "a shard of the same size": edited(SHARD, lambda text: text[:-1] + bytes([text[-1] ^ 1])),
    "no record": lambda out, mine: (out / RECORD).unlink(),
    "an empty record": edited(RECORD, lambda text: b""),
    "a record that was edited": edited(RECORD, lambda text: text.replace(b'"dropped"', b'"drooped"')),
    "a record of a newer version": edited(RECORD, lambda text: text.replace(b'"schema": ', b'"schema": 9')),
    "a record that is a link": lambda out, mine: (
        (out / RECORD).replace(mine / "r") and linked(RECORD, "r")(out, mine)
    ),
}


@pytest.fixture(scope="module")
def earlier(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A source, and an output of it."""
    from tests.checkpoints import llama_config, llama_shapes, random_tensors, write_checkpoint

    root = tmp_path_factory.mktemp("earlier")
    source = write_checkpoint(root / "source", random_tensors(llama_shapes()), llama_config())
    gatenorm_stream.prune(gatenorm_stream.plan(source, layers=[2]), root / "out")
    return source, root / "out"


@pytest.mark.parametrize("foreign", FOREIGN)
def test_force_deletes_only_what_is_on_record(
    earlier: tuple[Path, Path], tmp_path: Path, mine: Path, foreign: str
) -> None:
    out = shutil.copytree(earlier[1], tmp_path / "out")
    FOREIGN[foreign](out, mine)
    before = state(out), state(mine)
    with pytest.raises(OutputError) as refused:
        prune(earlier[0], out, force=True)
    assert "\n" not in str(refused.value)
    assert (state(out), state(mine)) == before


def test_what_comes_in_while_it_runs_is_not_deleted(earlier: tuple[Path, Path], tmp_path: Path) -> None:
    out = shutil.copytree(earlier[1], tmp_path / "out")

    def come(what: str, done: int, total: int, file: str) -> None:
        (out / "results.txt").write_text("mine")

    with pytest.raises(OutputError, match=r"holds results\.txt"):
        prune(earlier[0], out, force=True, progress=come)
    assert (out / "results.txt").read_text() == "mine"
    (out / "results.txt").unlink()
    gatenorm_stream.verify(out)
    prune(earlier[0], out, force=True)
    gatenorm_stream.verify(out, against=earlier[0])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out"]


def test_what_is_another_output_is_not_written_over(earlier: tuple[Path, Path], tmp_path: Path) -> None:
    """`x.partial` may be the name that somebody gave an output."""
    partial = shutil.copytree(earlier[1], tmp_path / "out.partial")
    for restart in (False, True):
        with pytest.raises(OutputError, match="is a finished output"):
            prune(earlier[0], tmp_path / "out", restart=restart)
    gatenorm_stream.verify(partial)


@pytest.mark.slow
def test_what_a_killed_run_was_replacing_is_named(run: Run, earlier: tuple[Path, Path], tmp_path: Path) -> None:
    aside = tmp_path / "out.replaced-0a1b2c3d"
    (aside / "out").mkdir(parents=True)
    (aside / "out" / "results.txt").write_text("mine")
    done = run(earlier[0], "--out", "out", "--layers", "1")
    assert done.returncode == 0
    assert f"{aside.name} holds what was left" in done.stderr
    assert (aside / "out" / "results.txt").read_text() == "mine"


def test_a_gguf_record_of_something_else_is_not_written_over(tmp_path: Path) -> None:
    model = write_gguf(tmp_path / "model.gguf", tensors(shapes(), "Q4_0"))
    record = tmp_path / "out.gatenorm.json"
    record.write_text("mine")
    for force in (False, True):
        with pytest.raises(OutputError, match=r"out\.gatenorm\.json"):
            prune(model, tmp_path / "out.gguf", force=force)
    record.unlink()

    def come(what: str, done: int, total: int, file: str) -> None:
        if what == "writing":
            record.write_text("mine")

    with pytest.raises(OutputError, match="made by someone else"):
        prune(model, tmp_path / "out.gguf", progress=come)
    assert record.read_text() == "mine"
    assert not (tmp_path / "out.gguf").exists()
    record.unlink()
    prune(model, tmp_path / "out.gguf")
    gatenorm_stream.verify(tmp_path / "out.gguf", against=model)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "model.gguf",
        "out.gatenorm.json",
        "out.gatenorm.md",
        "out.gguf",
    ]


def test_a_gguf_file_that_is_not_what_its_record_says_is_kept(tmp_path: Path) -> None:
    model, out = write_gguf(tmp_path / "model.gguf", tensors(shapes(), "Q4_0")), tmp_path / "out.gguf"
    prune(model, out)
    content = bytearray(out.read_bytes())
    content[-1] ^= 1
    out.write_bytes(content)
    with pytest.raises(OutputError, match="is not what"):
        prune(model, out, force=True)
    assert out.read_bytes() == bytes(content)


def test_a_picture_is_not_written_over(tmp_path: Path, mine: Path) -> None:
    path = tmp_path / "scores.svg"
    path.write_text("mine")
    with pytest.raises(PictureError, match="--force"):
        check_plot(path)
    check_plot(path, force=True)
    replaced(path).symlink_to(mine / "thesis")
    with pytest.raises(PictureError, match="not a regular file"):
        check_plot(path, force=True)


def test_what_is_mounted_is_not_deleted(tmp_path: Path, mine: Path) -> None:
    import subprocess

    place = tmp_path / "partial" / "place"
    place.mkdir(parents=True)
    mount = ["mount", "--bind", str(mine), str(place)]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no right to mount")
    try:
        with open_folder(tmp_path) as folder, pytest.raises(OutputError, match="another file system"):
            folder.remove("partial")
        assert (mine / "thesis").read_text() == "mine"
    finally:
        subprocess.run(["umount", place], check=True)


def test_a_shard_that_becomes_a_pipe_before_it_is_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The check reads it by its name, by a library that would wait for somebody to write."""
    source = write_checkpoint(tmp_path / "source", random_tensors(llama_shapes()), llama_config())
    check = write._check_shards

    def checked(layout: Layout, partial: Path) -> None:
        os.mkfifo(replaced(partial / layout.shards[0].name))
        check(layout, partial)

    monkeypatch.setattr(write, "_check_shards", checked)
    with pytest.raises(gatenorm_stream.VerificationError, match="no regular file any more"):
        gatenorm_stream.prune(gatenorm_stream.plan(source, layers=[1]), tmp_path / "out")
    assert not (tmp_path / "out").exists()
