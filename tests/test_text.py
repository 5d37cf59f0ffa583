"""The text that a model is measured on."""

from __future__ import annotations

import os
import re
import threading
from pathlib import Path

import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from gatenorm_stream.errors import TextError
from gatenorm_stream.measuring import text as texts
from gatenorm_stream.measuring.text import BUILT_IN, MARK, built_in_text, read_text


def test_halves_of_the_built_in_text_have_nothing_in_common() -> None:
    text = built_in_text()
    sentences = [re.split(r"(?<=[.!?。؟।])\s+|\n+", part) for part in (text.choosing, text.judging)]
    long = [[s.strip() for s in part if len(s.strip()) > 12] for part in sentences]
    assert min(len(part) for part in long) > 80
    assert not set(long[0]) & set(long[1])
    assert sum(len(set(part)) for part in long) == sum(len(part) for part in long)


def test_halves_of_the_built_in_text_are_the_same_mixture() -> None:
    pieces = BUILT_IN.read_text("utf-8").removesuffix("\n").split(MARK)
    assert len(pieces) % 2 == 0
    for one, other in zip(pieces[::2], pieces[1::2], strict=True):
        assert 0.5 < len(one) / len(other) < 2
        assert scripts(one) == scripts(other)
    assert set().union(*map(scripts, pieces)) >= {"Cyrillic", "Han", "kana", "Arabic", "Devanagari"}
    text = built_in_text()
    assert all(piece in text.choosing for piece in pieces[::2])
    assert all(piece in text.judging for piece in pieces[1::2])


def scripts(text: str) -> set[str]:
    ranges = {
        "Cyrillic": "[Ѐ-ӿ]",
        "Han": "[一-鿿]",
        "kana": "[぀-ヿ]",
        "Arabic": "[\u0600-\u06ff]",
        "Devanagari": "[ऀ-ॿ]",
    }
    return {name for name, pattern in ranges.items() if re.search(pattern, text)}


def test_code_in_the_built_in_text_is_code() -> None:
    pieces = BUILT_IN.read_text("utf-8").removesuffix("\n").split(MARK)
    python = [piece for piece in pieces if re.search(r"^def ", piece, re.MULTILINE)]
    assert len(python) == 2
    for piece in python:
        compile(piece, "piece", "exec")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is empty"),
        (b" \n\t\n", "is empty"),
        (b"GIF89a\x00\x01", "byte 6 is zero"),
        ("Müller".encode("latin-1"), "byte 1 (0xfc) belongs to no character"),
    ],
)
def test_files_that_are_no_text(content: bytes, says: str, tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_bytes(content)
    refused(path, says)


def test_what_is_no_file(tmp_path: Path) -> None:
    refused(tmp_path, "is a directory")
    refused(tmp_path / "missing.txt", "can't be read: No such file or directory")
    refused(Path("/dev/zero"), "byte 0 is zero")


def refused(path: Path, says: str) -> None:
    with pytest.raises(TextError, match=re.escape(says)) as caught:
        read_text(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_digest_is_that_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_bytes("One line.\r\nÄnother one.\nAnd a third follows\n".encode())
    text = read_text(path)
    assert text.digest == blake3(path.read_bytes()).hexdigest()
    assert (text.name, text.choosing, text.judging) == (
        str(path),
        "One line.\r\nÄnother one.\n",
        "And a third follows\n",
    )
    marked = tmp_path / "marked.txt"
    marked.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert read_text(marked).digest == text.digest


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\ufeff"), min_size=1))
def test_halves_are_the_whole(tmp_path_factory: pytest.TempPathFactory, content: str) -> None:
    if not content.strip():
        return
    path = tmp_path_factory.getbasetemp() / "half.txt"
    path.write_bytes(content.encode())
    text = read_text(path)
    assert text.choosing + text.judging == content
    assert len(content) // 2 <= len(text.choosing) <= max(len(content) * 6 // 10, len(content) // 2)


@pytest.mark.parametrize("extra", range(4))
def test_only_the_beginning_of_a_long_file_is_read(
    extra: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever in a character the bound stands."""
    monkeypatch.setattr(texts, "MOST_BYTES", 40)
    path = tmp_path / "text.txt"
    path.write_text("a" * extra + "🎉" * 30, encoding="utf-8")
    text = read_text(path)
    assert text.choosing + text.judging == "a" * extra + "🎉" * ((40 - extra) // 4)


def test_reads_a_pipe(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: pipe.write_text("first line\nsecond line\n"))
    writer.start()
    text = read_text(pipe)
    writer.join()
    assert text.choosing + text.judging == "first line\nsecond line\n"
