"""An answer of the stand-in Hub before it is sent: ranges, and the faults that spoil it."""

from __future__ import annotations

import gzip
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tests.hub.hub_faults import Fault
from tests.hub.hub_repository import File


@dataclass(frozen=True)
class Answer:
    """A status, headers and a body: `length` bytes from `start` of these bytes or of the file at this path."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | Path = b""
    start: int = 0
    length: int = 0
    size: int = 0  # of the whole file
    file: str = ""  # its name in the repository
    key: str = ""  # repository/commit/file: what the storage hosts know it by
    cut: int | None = None  # the connection is closed after as many bytes
    stall: bool = False  # or rather kept open in silence
    corrupt: bool = False

    def headed(self, **headers: str) -> Answer:
        """With these headers too, named as in `X_Repo_Commit`."""
        return replace(self, headers={**self.headers, **{k.replace("_", "-"): v for k, v in headers.items()}})

    def chunks(self, most: int) -> Iterator[bytes]:
        """The body in pieces. What lies beyond the end of a file reads as zeros."""
        end = self.start + (self.length if self.cut is None else min(self.cut, self.length))
        if isinstance(self.body, bytes):
            pieces = (self.body[place : min(place + most, end)] for place in range(self.start, end, most))
            yield from self._corrupted(pieces)
            return
        file = os.open(self.body, os.O_RDONLY)
        try:
            sizes = ((place, min(most, end - place)) for place in range(self.start, end, most))
            yield from self._corrupted(os.pread(file, size, place).ljust(size, b"\0") for place, size in sizes)
        finally:
            os.close(file)

    def _corrupted(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        for n, piece in enumerate(pieces):
            yield bytes([piece[0] ^ 0xFF]) + piece[1:] if self.corrupt and n == 0 else piece


def data(content: bytes, kind: str, status: int = 200) -> Answer:
    return Answer(status, {"Content-Type": kind}, content, length=len(content), size=len(content))


def structure(value: Any) -> Answer:
    return data(json.dumps(value).encode(), "application/json; charset=utf-8")


def error(status: int, code: str, message: str, **headers: str) -> Answer:
    """As the Hub says it: in X-Error-Code and X-Error-Message, and the message again in JSON."""
    answer = replace(structure({"error": message}), status=status).headed(X_Error_Message=message, **headers)
    return answer.headed(X_Error_Code=code) if code else answer


def denied(message: str) -> Answer:
    """403 from the storage host, which answers in XML and knows none of the Hub's headers."""
    text = f'<?xml version="1.0"?><Error><Code>AccessDenied</Code><Message>{message}</Message></Error>'
    return data(text.encode(), "application/xml", 403)


def redirect(status: int, location: str, file: str = "", **headers: str) -> Answer:
    text = data(f"Redirecting to {location}".encode(), "text/plain", status)
    return replace(text, file=file).headed(Location=location, **headers)


def content(file: File, etag: str, asked: Mapping[str, str], **headers: str) -> Answer:
    """A file, or the part of it that Range (one range) asks for; If-Range and If-Match are heeded."""
    etag = f'"{etag}"'
    whole = Answer(200, {}, file.path, length=file.size, size=file.size, file=file.name)
    whole = whole.headed(ETag=etag, Accept_Ranges="bytes", Content_Type="application/octet-stream", **headers)
    if asked.get("If-Match", etag) not in (etag, "*"):
        return replace(data(b"", "text/plain", 412), file=file.name)
    match = re.fullmatch(r"bytes=(\d*)-(\d*)", (asked.get("Range") or "").replace(" ", ""))
    if not match or match[0] == "bytes=-" or asked.get("If-Range", etag) != etag:
        return whole
    first, last = match.groups()
    start = int(first) if first else max(file.size - int(last), 0)
    end = min(int(last), file.size - 1) + 1 if first and last else file.size
    if start >= file.size or end <= start:
        return replace(data(b"", "text/plain", 416), file=file.name).headed(Content_Range=f"bytes */{file.size}")
    return _part(whole, start, end)


def _part(answer: Answer, start: int, end: int) -> Answer:
    part = replace(answer, status=206, start=start, length=end - start)
    return part.headed(Content_Range=f"bytes {start}-{end - 1}/{answer.size}")


def _whole(answer: Answer) -> Answer:
    headers = {name: value for name, value in answer.headers.items() if name != "Content-Range"}
    return replace(answer, status=200, headers=headers, start=0, length=answer.size)


def _compressed(answer: Answer) -> Answer:
    packed = gzip.compress(b"".join(_whole(answer).chunks(1 << 20)))
    return replace(_whole(answer), body=packed, length=len(packed)).headed(Content_Encoding="gzip")


def spoilt(answer: Answer, fault: Fault, asked: Mapping[str, str], elsewhere: str) -> Answer:
    """The answer with what this fault does to it; `elsewhere` is where the third host has the file."""
    value = int(fault.value)
    match fault.kind:
        case "status":
            failure = replace(error(value, "", f"Status {value}, as told"), file=answer.file)
            failure = replace(failure, headers={**failure.headers, **dict(fault.headers)})
            return failure if fault.retry_after is None else failure.headed(Retry_After=str(fault.retry_after))
        case "expired":
            return replace(denied("Request has expired"), file=answer.file)
        case "redirect":
            return redirect(302, elsewhere, answer.file)
        case "etag":
            names = {"ETag", "X-Linked-Etag"} & set(answer.headers)
            return replace(answer, headers={**answer.headers, **dict.fromkeys(names, f'"{"0" * 40}"')})
        case "truncate":
            return replace(answer, cut=value)
        case "stall":
            return replace(answer, cut=answer.length // 2, stall=True)
        case "corrupt":
            return replace(answer, corrupt=True)
        case "gzip":
            return _compressed(answer) if value or "gzip" in asked.get("Accept-Encoding", "") else answer
        case "ignore-range":
            return _whole(answer)
        case "wrong-range":
            start = answer.start + (value or 1)
            return answer.headed(Content_Range=f"bytes {start}-{start + answer.length - 1}/{answer.size}")
        case "short":
            return _part(answer, answer.start, answer.start + min(value, answer.length))
        case "wrong-length":
            return replace(answer, length=max(answer.length + value, 0))
    return answer
