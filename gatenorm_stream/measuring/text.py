"""The text that a model is measured on: ours, or a file's. One part is to choose on, the other to judge on."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from blake3 import blake3

from gatenorm_stream.errors import TextError
from gatenorm_stream.names import utf8

BUILT_IN_NAME = "the built-in text"
BUILT_IN = Path(__file__).with_name("built_in.txt")
MARK = "\n=====\n"
"""Stands between the pieces of the text in the package."""
MOST_BYTES = 16_000_000
"""Of a longer file only the beginning is read."""


@dataclass(frozen=True)
class Text:
    """`digest`: BLAKE3 of both parts, one behind the other, in UTF-8; of a file's text that is the file's own."""

    name: str
    choosing: str
    judging: str
    digest: str


def built_in_text() -> Text:
    """About 2,000 tokens in each part, of the same kinds: pieces of either stand in the file by turns."""
    pieces = BUILT_IN.read_text("utf-8").removesuffix("\n").split(MARK)
    return _text(BUILT_IN_NAME, "\n\n".join(pieces[0::2]), "\n\n" + "\n\n".join(pieces[1::2]))


def read_text(path: str | os.PathLike[str]) -> Text:
    """Plain text in UTF-8; its first half chooses, its second judges. They part at a line's end, if one is near.

    Raises TextError if it is not that, is empty, or can't be read.
    """
    name = os.fspath(path)
    try:
        with open(name, "rb") as file:
            data = file.read(MOST_BYTES)
    except IsADirectoryError:
        raise TextError(f"{name} is a directory; give a file of plain text") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise TextError(f"{name} can't be read: {reason}; give a file of plain text") from error
    text = _decode(name, data)
    if not text.strip():
        raise TextError(f"{name} is empty; give a file of plain text")
    middle = _middle(text)
    return _text(utf8(name), text[:middle], text[middle:])


def _decode(name: str, data: bytes) -> str:
    if b"\0" in data:
        raise TextError(f"{name} is not plain text: byte {data.index(0)} is zero; give a text file in UTF-8")
    try:
        return data.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        if len(data) == MOST_BYTES and error.start >= len(data) - 3:  # the bound stands within a character
            return data[: error.start].decode("utf-8").removeprefix("\ufeff")
        raise TextError(
            f"{name} is not in UTF-8: byte {error.start} ({data[error.start]:#04x}) belongs to no character; save "
            "it in UTF-8 (iconv -f LATIN1 -t UTF-8)"
        ) from error


def _middle(text: str) -> int:
    """Behind the line that the middle stands in, or its word, if the end is within a tenth of the text."""
    half, latest = len(text) // 2, len(text) * 6 // 10
    for end in ("\n", " "):
        if (found := text.find(end, half, latest)) >= 0:
            return found + 1
    return half


def _text(name: str, choosing: str, judging: str) -> Text:
    return Text(name, choosing, judging, blake3((choosing + judging).encode("utf-8")).hexdigest())
