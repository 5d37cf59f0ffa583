"""The table of families as people read it."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator
from typing import Any

from gatenorm_stream.families.family import Family
from gatenorm_stream.formats.choice import FORMATS

NAME, MODEL_TYPE = 22, 18


def formats_of(row: Family) -> tuple[str, ...]:
    """The output formats that can express the family. A single model may still have a limit that a plan tells."""
    return tuple(f.name for f in FORMATS.values() if f.expresses(row))


def family_table(rows: Iterable[Family], width: int = 80) -> str:
    return "\n".join(_lines(rows, width))


def family_json(row: Family) -> dict[str, Any]:
    return {
        "name": row.name,
        "model_type": row.model_type,
        "architecture": row.architecture,
        "readings": ["per-head", "joint"] if row.latent else ["per-head", "joint", "stored"],
        "formats": list(formats_of(row)),
        "note": row.note,
    }


def _lines(rows: Iterable[Family], width: int) -> Iterator[str]:
    yield f"{'family':<{NAME}}{'model_type':<{MODEL_TYPE}}output formats"
    for row in rows:
        yield f"{row.name:<{NAME}}{row.model_type:<{MODEL_TYPE}}{', '.join(formats_of(row))}"
        if row.note:
            yield textwrap.fill(row.note, width, initial_indent="    ", subsequent_indent="    ")
