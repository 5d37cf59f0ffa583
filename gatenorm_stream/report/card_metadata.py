"""The front matter of an output's model card: what the source's card says, and where the output comes from."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TypeGuard

from gatenorm_stream.families.model import Model
from gatenorm_stream.names import CARD
from gatenorm_stream.planning.plan import Plan
from gatenorm_stream.report.source_card import (
    CARRIED_OVER,
    LARGEST_FRONT_MATTER,
    NO_TEXT,
    SourceCard,
    Value,
    read_source_card,
)
from gatenorm_stream.sources.ranges import ByteRange
from gatenorm_stream.sources.source import Kind

LONGEST = 1000
"""Characters of a licence in a GGUF file's metadata."""
TAG = "pruned"
GATE_NORM = "gate-norm"
RELATION = "finetune"
"""Of the four that the Hub knows (adapter, merge, quantized, finetune), the one for another model made of one."""

_PLAIN = re.compile(r"[^\W_][^\n]*", re.ASCII)
_AMBIGUOUS = re.compile(r"y|n|yes|no|on|off|.*(: | #).*|.*:", re.IGNORECASE)
"""What some reader takes for something else unless it stands in quotes."""


def front_matter(model: Model, plan: Plan, card: SourceCard) -> str:
    """YAML that the Hub accepts, with the fields of the source's `card`."""
    found = card.fields
    base = _base(model, found.get("base_model"))
    tags = found.get("tags", [])
    own = [GATE_NORM, TAG] if plan.reading else [TAG]
    fields: dict[str, Value] = {
        **({"base_model": base} if base else {}),
        **{key: found[key] for key in CARRIED_OVER if key in found},
        "tags": [*dict.fromkeys([*([tags] if isinstance(tags, str) else tags), *own])],
        **({"base_model_relation": RELATION} if base else {}),
    }
    return "\n".join(line for key, value in fields.items() for line in _write_entry(key, value))


def source_card(model: Model) -> SourceCard:
    """Empty if there is none. Raises CheckpointError if it can't be read."""
    source = model.checkpoint.source
    if source.kind is Kind.GGUF and not source.revision:
        told = model.text.get("general.license")  # what else lies in a folder of GGUF files may be another model's
        return SourceCard({"license": told.strip()} if _is_text(told) else {})
    if CARD not in source.names():
        return SourceCard()
    file = source.open(CARD)
    return read_source_card(bytes(file.read(ByteRange(0, min(file.size, LARGEST_FRONT_MATTER)))))


def _is_text(value: object) -> TypeGuard[str]:
    return isinstance(value, str) and bool(value.strip()) and value.isprintable() and len(value) <= LONGEST


def _base(model: Model, named: Value | None) -> Value | None:
    """The repository that the source is; of a local directory, the one that its card says it comes from."""
    source = model.checkpoint.source
    return source.title.partition(":")[0] if source.revision else named


def _write_entry(key: str, value: Value) -> Iterator[str]:
    if isinstance(value, str):
        yield f"{key}: {_written(value)}"
    else:
        yield f"{key}:"
        yield from (f"- {_written(text)}" for text in value)


def _written(text: str) -> str:
    """A printable text so that any reader of YAML takes it for a text."""
    if _PLAIN.fullmatch(text) and not _AMBIGUOUS.fullmatch(text) and not NO_TEXT.fullmatch(text):
        return text
    return "'" + text.replace("'", "''") + "'"
