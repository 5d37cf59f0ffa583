"""What every source promises, as checks that run on any of them (tests/test_sources.py).

    python -m tests.source_checks MODEL FOLDER KEPT

runs all of them on MODEL, whose files are those of FOLDER, and prints what went wrong, as JSON: sources on the Hub
need an environment of their own before huggingface_hub is loaded. If KEPT is a path, what is read is kept there.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gatenorm_stream.errors import CheckpointError
from gatenorm_stream.folder import open_folder
from gatenorm_stream.sources.open import open_source
from gatenorm_stream.sources.ranges import ByteRange
from gatenorm_stream.sources.source import Kind, Source

FILES = {
    "config.json": b"{}",
    "sub/deep.bin": os.urandom(100),
    "empty.txt": b"",
    "large.safetensors": bytes(range(256)) * 400,
}

Check = Callable[[Source, Path], None]


def write_files(folder: Path) -> Path:
    for name, content in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def lists_all_files_sorted(source: Source, folder: Path) -> None:
    assert source.names() == tuple(sorted(FILES))


def says_what_it_is(source: Source, folder: Path) -> None:
    assert source.title
    assert source.kind is Kind.SAFETENSORS
    assert source.gguf == ()
    assert source.connections >= 1
    assert source.remote == (source.directory is None)


def refuses_what_is_not_there(source: Source, folder: Path) -> None:
    with pytest.raises(CheckpointError, match=r"absent\.bin"):
        source.open("absent.bin")


def knows_sizes_and_paths(source: Source, folder: Path) -> None:
    for name in FILES:
        file = source.open(name)
        assert file.size == (folder / name).stat().st_size
        assert name.rpartition("/")[2] in file.title
        assert file.path is None or file.path.read_bytes() == (folder / name).read_bytes()


def opens_a_file_once(source: Source, folder: Path) -> None:
    assert source.open("config.json") is source.open("config.json")


def identity_tells_versions_apart(source: Source, folder: Path) -> None:
    assert source.open("large.safetensors").identity == source.open("large.safetensors").identity
    assert source.open("large.safetensors").identity != source.open("sub/deep.bin").identity


def vouches_for_true_digests_only(source: Source, folder: Path) -> None:
    for name in FILES:
        vouched = source.open(name).sha256
        assert vouched in (None, hashlib.sha256((folder / name).read_bytes()).hexdigest())


def reads_any_range(source: Source, folder: Path) -> None:
    for name in FILES:
        content, file = (folder / name).read_bytes(), source.open(name)
        size = len(content)
        for start, stop in ((0, size), (0, 0), (size, size), (size // 3, size // 2), (max(size - 1, 0), size)):
            where = ByteRange(start, stop)
            assert bytes(file.read(where)) == content[start:stop]
            assert bytes(file.fetch(where)) == content[start:stop]


def fills_memory_that_is_given(source: Source, folder: Path) -> None:
    memory = bytearray(b"\xff" * 1000)
    source.open("large.safetensors").read_into(ByteRange(500, 1300), memoryview(memory)[100:900])
    assert memory[100:900] == (folder / "large.safetensors").read_bytes()[500:1300]
    assert set(memory[:100] + memory[900:]) == {0xFF}


def refuses_bytes_behind_the_end(source: Source, folder: Path) -> None:
    file = source.open("sub/deep.bin")
    with pytest.raises(CheckpointError):
        file.read(ByteRange(90, 101))
    with pytest.raises(CheckpointError):
        file.read_into(ByteRange(90, 101), memoryview(bytearray(11)))


def segments_cover_a_range_in_order(source: Source, folder: Path) -> None:
    file, content = source.open("large.safetensors"), (folder / "large.safetensors").read_bytes()
    file.read(ByteRange(1000, 3000))
    position = 10
    for part, descriptor in file.segments(ByteRange(10, 90_000)):
        assert part.start == position
        assert part
        position = part.stop
        if descriptor is not None:
            assert os.pread(descriptor, len(part), part.start) == content[part.start : part.stop]
    assert position == 90_000


def keeps_what_it_says(source: Source, folder: Path) -> None:
    file = source.open("large.safetensors")
    file.read(ByteRange(5000, 6000))
    (_, descriptor), *more = file.segments(ByteRange(5000, 6000))
    assert source.keeps == (descriptor is not None)
    assert not more


def may_be_told_what_comes(source: Source, folder: Path) -> None:
    file = source.open("large.safetensors")
    file.expect(ByteRange(0, file.size))
    file.expect(ByteRange(7, 7))


def is_unchanged(source: Source, folder: Path) -> None:
    file = source.open("large.safetensors")
    file.read(ByteRange(0, file.size))
    file.check_unchanged()
    source.check_unchanged()


def serves_threads_side_by_side(source: Source, folder: Path) -> None:
    file, content = source.open("large.safetensors"), (folder / "large.safetensors").read_bytes()
    parts = list(ByteRange(0, file.size).chunks(9_973))
    with ThreadPoolExecutor(4) as pool:
        assert b"".join(map(bytes, pool.map(file.read, parts))) == content


def closes_twice(source: Source, folder: Path) -> None:
    source.open("config.json")
    source.close()
    source.close()


CHECKS: tuple[Check, ...] = (
    lists_all_files_sorted,
    says_what_it_is,
    refuses_what_is_not_there,
    knows_sizes_and_paths,
    opens_a_file_once,
    identity_tells_versions_apart,
    vouches_for_true_digests_only,
    reads_any_range,
    fills_memory_that_is_given,
    refuses_bytes_behind_the_end,
    segments_cover_a_range_in_order,
    keeps_what_it_says,
    may_be_told_what_comes,
    is_unchanged,
    serves_threads_side_by_side,
    closes_twice,
)


def main(model: str, folder: str, kept: str) -> None:
    failed = {}
    for number, check in enumerate(CHECKS):
        source = open_source(model)
        if kept:
            Path(kept, str(number)).mkdir(parents=True)
            source.keep_in(open_folder(Path(kept, str(number))))
        try:
            check(source, Path(folder))
        except BaseException:
            failed[check.__name__] = traceback.format_exc()
        finally:
            source.close()
    print(json.dumps({"remote": source.remote, "failed": failed}))


if __name__ == "__main__":
    main(*sys.argv[1:])
