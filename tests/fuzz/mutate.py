"""A byte mutator for JSON-like files, seeded from real ones: fast, and blind to the format's rules."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence

TOKENS = (
    *(b'"', b"{", b"}", b"[", b"]", b",", b":", b" ", b"\\", b"\0", b"\xff", b"\xf0\x9f\x98\x80", b"-", b".", b"e"),
    *(b"null", b"true", b"[]", b"{}", b'""', b"NaN", b"-Infinity", b"1e999", b"0", b"-1", b"1.5", b"01"),
    *(b"18446744073709551616", b"9223372036854775807", b"4294967296", b"9" * 50, b"1000000000"),
    *(b"\\u0000", b"\\ud800", b"\\ud83d\\ude00", b"../", b"/", b".safetensors", b"__metadata__", b"\xef\xbb\xbf"),
)
_NUMBER = re.compile(rb"\d+")
_STRING = re.compile(rb'"[^"]*"')


def mutate(rng: random.Random, data: bytes, others: Sequence[bytes]) -> bytes:
    for _ in range(rng.choice((1, 1, 1, 2, 3, 6))):
        data = _once(rng, data, others)
    return data


def _once(rng: random.Random, data: bytes, others: Sequence[bytes]) -> bytes:
    a = rng.randrange(len(data) + 1)
    b = min(len(data), a + rng.choice((1, 1, 2, 4, 16, 64)))
    kind = rng.randrange(9)
    if kind == 0 and a < b:
        return data[:a] + bytes([data[a] ^ 1 << rng.randrange(8)]) + data[a + 1 :]
    if kind == 1:
        return data[:a] + rng.choice(TOKENS) + data[a:]
    if kind == 2:
        return data[:a] + rng.choice(TOKENS) + data[b:]
    if kind == 3:
        return data[:a] + data[b:]
    if kind == 4:
        return data[:b] + data[a:]
    if kind == 5:
        other = rng.choice(others)
        c = rng.randrange(len(other) + 1)
        return data[:a] + other[c : c + rng.choice((4, 32, 256))] + data[b:]
    if kind == 6:
        return data[:a] if rng.randrange(4) == 0 else data
    match = (_NUMBER if kind == 7 else _STRING).search(data, a)
    if match is None:
        return data
    found = rng.choice(_NUMBER.findall(data) if kind == 7 else _STRING.findall(data))
    return data[: match.start()] + (found if rng.randrange(2) else rng.choice(TOKENS)) + data[match.end() :]
