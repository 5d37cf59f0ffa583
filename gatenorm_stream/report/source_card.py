"""The few fields of a source's model card that an output's takes over: `key: text` and lists of texts, no YAML.

A YAML parser on a stranger's text is a risk without a gain: aliases make 1 kB hang it, and other kinds of values
are not carried over anyway. What stands in another form (aliases, anchors, tags, merges, text of several lines) is
left out and named. Time and memory are linear in what is read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

Value: TypeAlias = str | list[str]

LARGEST_FRONT_MATTER = 64 << 10
"""Bytes."""
CARRIED_OVER = ("language", "library_name", "license", "license_name", "license_link", "pipeline_tag")
READ = (*CARRIED_OVER, "base_model", "tags")

_BREAK = re.compile(r"\r\n|\r|\n")
_KEY = re.compile(r"""(["']?)([A-Za-z_][\w-]*)\1[ \t]*:(?:[ \t]+|$)""")
_SINGLE = re.compile(r"'((?:[^']|'')*)'")
_DOUBLE = re.compile(r'"(?:[^"\\]|\\.)*"')
_COMMENT = re.compile(r"(?:^|[ \t])#")
_QUOTED_OR_COMMENT = re.compile(
    r"""(?P<quoted>(?:^|(?<=[\s\[,]))(?:'(?:[^']|'')*'|"(?:[^"\\]|\\.)*"))|(?:^|(?<=\s))#.*""", re.MULTILINE
)
_SPECIAL = tuple("&*!|>%@`{}[],\"'#")
"""What begins a thing that is not plain text."""
NO_TEXT = re.compile(
    r"~|null|true|false|[-+]?\.(inf|nan)|[-+]?0[box][\da-f_]+|[-+]?\d[\d_]*(:[0-5]?\d)+(\.\d*)?"
    r"|[-+]?(\d[\d_]*(\.[\d_]*)?|\.\d[\d_]*)(e[-+]?\d+)?|\d{4}-\d\d?-\d\d?(([t ]|$).*)?",
    re.IGNORECASE,
)
"""What is a number, a date, a truth value or nothing unless it stands in quotes."""


class _OtherFormError(ValueError):
    pass


@dataclass(frozen=True)
class SourceCard:
    """`fields` are texts, or lists that have one at least; `remarks` tell what of READ was left out."""

    fields: Mapping[str, Value] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()


def read_source_card(start: bytes) -> SourceCard:
    """What the card that begins with `start` says, of which LARGEST_FRONT_MATTER bytes are read. Raises nothing."""
    text = start[:LARGEST_FRONT_MATTER].decode("utf-8", errors="replace")
    lines = _BREAK.split(text.lstrip())
    if lines[0] != "---":
        return SourceCard()
    end = next((n for n, line in enumerate(lines) if n and line.rstrip(" \t") == "---"), None)
    if end is None and len(start) < LARGEST_FRONT_MATTER:
        return SourceCard()
    entries = list(_entries(lines[1:end]))
    remarks = []
    if end is None:
        entries = entries[:-1]
        limit = LARGEST_FRONT_MATTER >> 10
        remarks.append(f"the source's model card has over {limit} kB of metadata; what comes later is left out")
    fields: dict[str, Value] = {}
    left_out = set()
    for key, first, rest in entries:
        if key not in READ:
            continue
        fields.pop(key, None)
        left_out.discard(key)
        try:
            if value := _value(first, rest, some=key == "tags"):
                fields[key] = value
        except _OtherFormError:
            left_out.add(key)
    if left_out:
        names = ", ".join(sorted(left_out))
        remarks.append(f"left out of the model card: {names}, which the source's does not give as plain text")
    return SourceCard(fields, tuple(remarks))


def _entries(lines: list[str]) -> Iterator[tuple[str, str, list[str]]]:
    """(key, what follows it, the lines that belong to it) of each field at the outermost level."""
    key, first, rest = "", "", list[str]()
    for line in lines:
        if match := _KEY.match(line):
            if key:
                yield key, first, rest
            key, first, rest = match[2], line[match.end() :], []
        elif line[:1] not in ("", "#", " ", "\t", "-", "]", "["):  # a merge, a document's end: in no field
            if key:
                yield key, first, rest
            key = ""
        elif line.strip() and not line.lstrip().startswith("#"):
            rest.append(line)
    if key:
        yield key, first, rest


def _value(first: str, rest: list[str], *, some: bool) -> Value | None:
    """None for an empty value; of a list, with `some`, the texts in it. Raises _OtherFormError."""
    head = _without_comment(first)
    if head.startswith("[") or (not head and rest and rest[0].lstrip().startswith("[")):
        return _flow(_without_comments("\n".join([first, *rest])), some)
    if head:
        if rest:
            raise _OtherFormError
        return _scalar(first)
    items = [line.strip() for line in rest]
    if not items:
        return None
    if not all(item == "-" or item.startswith(("- ", "-\t")) for item in items):
        raise _OtherFormError
    return _texts([item[1:] for item in items], some)


def _texts(items: list[str], some: bool) -> list[str]:
    found = []
    for item in items:
        try:
            text = _scalar(item)
        except _OtherFormError:
            text = None
        if text:
            found.append(text)
        elif not some:
            raise _OtherFormError
    return found


def _flow(text: str, some: bool) -> list[str] | None:
    """A list in square brackets."""
    if not text.endswith("]"):
        raise _OtherFormError
    items, at, inner = list[str](), 0, text[1:-1]
    while at < len(inner):
        while at < len(inner) and inner[at] in " \t":
            at += 1
        begun = at
        if match := _quoted(inner, at):
            at = match.end()
        while at < len(inner) and inner[at] not in ",[]{}":
            at += 1
        if at < len(inner) and inner[at] != ",":
            raise _OtherFormError
        if inner[begun:at].strip():
            items.append(inner[begun:at])
        at += 1
    return _texts(items, some) if items else None


def _quoted(text: str, at: int = 0) -> re.Match[str] | None:
    return (_SINGLE if text[at : at + 1] == "'" else _DOUBLE).match(text, at)


def _without_comment(text: str) -> str:
    """What stands before a comment. A # in quotes is not told apart."""
    match = _COMMENT.search(text)
    return (text[: match.start()] if match else text).strip(" \t")


def _without_comments(lines: str) -> str:
    """The lines of a list in square brackets as one line; a # in quotes begins no comment."""
    kept = _QUOTED_OR_COMMENT.sub(lambda match: match["quoted"] or "", lines)
    return " ".join(line.strip(" \t") for line in kept.split("\n")).strip(" \t")


def _scalar(text: str) -> str | None:
    """None for an empty one. Raises _OtherFormError for what is no text of one line that can be printed."""
    text = text.strip(" \t")
    if match := _quoted(text):
        if _without_comment(text[match.end() :]):
            raise _OtherFormError
        try:
            value = match[1].replace("''", "'") if text[0] == "'" else str(json.loads(match[0]))
        except ValueError:
            raise _OtherFormError from None
    else:
        value = _without_comment(text)
        if (
            value.startswith(_SPECIAL)
            or re.search(r":([ \t]|$)", value)
            or value.startswith(("- ", "-\t", "? ", "?\t"))
        ):
            raise _OtherFormError
        if value and NO_TEXT.fullmatch(value):
            raise _OtherFormError
    if not value.isprintable():
        raise _OtherFormError
    return value.strip() or None
