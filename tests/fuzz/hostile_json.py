"""JSON as an attacker writes it: keys twice, numbers beyond all types, halves of characters, depth."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st


@dataclass(frozen=True)
class Pairs:
    """An object whose keys may stand twice."""

    pairs: tuple[tuple[Any, Any], ...]


@dataclass(frozen=True)
class Raw:
    """Text that stands in the JSON as it is."""

    text: str


def dump(value: Any) -> bytes:
    return _text(value).encode("utf-8", "surrogatepass")


def _text(value: Any) -> str:
    match value:
        case Raw(text):
            return text
        case Pairs(pairs):
            return "{" + ",".join(f"{_text(k)}:{_text(v)}" for k, v in pairs) + "}"
        case dict():
            return _text(Pairs(tuple(value.items())))
        case list() | tuple():
            return "[" + ",".join(map(_text, value)) + "]"
        case _:
            return json.dumps(value)


def nested(depth: int) -> Raw:
    return Raw("[" * depth + "]" * depth)


integers = st.one_of(
    st.integers(-2, 300),
    st.sampled_from([2**31, 2**32, 2**53 + 1, 2**63 - 1, 2**63, 2**64 - 1, 2**64, 10**30, -(2**63), 10**9]),
)
numbers = st.one_of(
    integers,
    st.floats(),
    st.sampled_from(
        [Raw("1e999"), Raw("-0"), Raw("1E400"), Raw("9" * 45), Raw("9" * 5000), Raw("1.0"), Raw("0.1e1"), Raw("01")]
    ),
)
names = st.one_of(
    st.sampled_from(
        [
            "..",
            "../x.safetensors",
            "/etc/passwd",
            "/x.safetensors",
            "a\0b.safetensors",
            "a\\b.safetensors",
            "C:x.safetensors",
            "~/x.safetensors",
            ".safetensors",
            "sub/x.safetensors",
            "\x1b[2J.safetensors",
            "x" * 300 + ".safetensors",
            "",
            "__metadata__",
        ]
    ),
    st.text(max_size=8),
    st.just(Raw('"\\ud800"')),
    st.just(Raw('"\\ud83d\\ude00"')),
)
scalars = st.one_of(st.none(), st.booleans(), numbers, names)
values = st.one_of(
    scalars,
    st.recursive(
        scalars,
        lambda inner: st.one_of(
            st.lists(inner, max_size=4),
            st.lists(st.tuples(names, inner), max_size=4).map(lambda pairs: Pairs(tuple(pairs))),
        ),
        max_leaves=8,
    ),
    st.sampled_from([90, 200, 2000, 100_000]).map(nested),
)


@st.composite
def edited(draw: st.DrawFn, original: dict[str, Any], interesting: dict[str, Any] | None = None) -> bytes:
    """The object with up to three of its fields, or fields within these, replaced, doubled, added or gone.

    `interesting` holds a strategy of values for some fields.
    """
    pairs: list[tuple[Any, Any]] = list(original.items())
    for _ in range(draw(st.integers(1, 3))):
        field = draw(st.sampled_from([*original, *(interesting or {})]))
        value = draw((interesting or {}).get(field, values) if draw(st.integers(0, 4)) else values)
        match draw(st.sampled_from(["set", "set", "set", "double", "drop", "add"])):
            case "set":
                pairs = [(k, v) for k, v in pairs if k != field] + [(field, value)]
            case "double":
                pairs.append((field, value))
            case "drop":
                pairs = [(k, v) for k, v in pairs if k != field]
            case "add":
                pairs.append((draw(names), value))
    return dump(Pairs(tuple(pairs)))
