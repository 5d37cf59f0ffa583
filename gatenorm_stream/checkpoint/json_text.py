"""JSON from a stranger: parsed strictly, within bounds of memory, depth and time.

Stricter than Python's own parser, which takes what other readers refuse or read otherwise: UTF-8 only, no key
twice, no half of a surrogate pair, no integer of hundreds of digits, no float beyond all floats.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any, NoReturn

MAX_JSON_BYTES = 24_000_000
MAX_JSON_VALUES = 500_000
"""Commas and opening brackets. With the size it bounds the memory that a parsed value takes."""
MAX_DEPTH = 100
MAX_DIGITS = 40

_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


def parse_json(text: bytes, *, constants: bool = True) -> Any:
    """The value in `text`; with `constants`, the NaN and Infinity that Python's json writes are let pass.

    Raises ValueError that says what is wrong.
    """
    if len(text) > MAX_JSON_BYTES:
        raise ValueError(f"it is {len(text)} bytes long, and at most {MAX_JSON_BYTES} are read")
    if text.count(b",") + text.count(b"[") + text.count(b"{") > MAX_JSON_VALUES:
        raise ValueError(f"it holds more than {MAX_JSON_VALUES} values")
    try:
        value = json.loads(
            text.decode("utf-8"),
            object_pairs_hook=_unique,
            parse_int=_integer,
            parse_float=_finite,
            parse_constant=None if constants else _no_constant,
        )
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    _check_depth(value)
    if _SURROGATE.search(text):
        _check_characters(value)
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    seen = dict(pairs)
    if len(seen) != len(pairs):
        raise ValueError("a key stands twice in it")
    return seen


def _integer(digits: str) -> int | float:
    if digits == "-0":  # no integer to other readers
        return -0.0
    if len(digits) > MAX_DIGITS:
        raise ValueError(f"an integer in it has {len(digits)} digits")
    return int(digits)


def _finite(digits: str) -> float:
    if math.isinf(number := float(digits)):
        raise ValueError("a number in it is larger than any float")
    return number


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _check_depth(value: Any) -> None:
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(MAX_DEPTH):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, dict | list)
        ]
    if level:
        raise ValueError("it is nested too deeply")


def _check_characters(value: Any) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        raise ValueError("half of a surrogate pair stands in it") from None
