"""The table of families as people read it."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator
from typing import Any

from gatenorm_stream.families.family import Family
from gatenorm_stream.families.wrappers import Wrapper
from gatenorm_stream.formats.choice import FORMATS
from gatenorm_stream.formats.transformers import TRANSFORMERS
from gatenorm_stream.formats.zeroed import ZEROED
from gatenorm_stream.scoring.readings import READINGS

WRAPPER_FORMATS = (TRANSFORMERS.name, ZEROED.name)
NAME, MODEL_TYPE = 22, 18
WIDE = 67
"""Columns in which the formats find room behind a name."""


def formats_of(row: Family) -> tuple[str, ...]:
    """The output formats that can express the family. A single model may still have a limit that a plan tells."""
    return tuple(f.name for f in FORMATS.values() if f.expresses(row))


def family_table(rows: Iterable[Family], width: int = 80) -> str:
    return "\n".join(_draw_rows(rows, width))


def family_json(row: Family) -> dict[str, Any]:
    return {
        "name": row.name,
        "model_type": row.model_type,
        "architecture": row.architecture,
        "readings": [r for r in READINGS if not (row.latent and r == "stored")],
        "formats": list(formats_of(row)),
        "note": row.note,
    }


def wrapper_table(wrappers: Iterable[Wrapper], width: int = 80) -> str:
    rows = [_row(w.name, w.model_type, ", ".join(WRAPPER_FORMATS), width) for w in wrappers]
    head = _row("multimodal model", "model_type", "output formats", width)
    rest = "Others whose text_config names one of these families are read too: format zeroed."
    return "\n".join((head, *rows, "", textwrap.fill(rest, width)))


def wrapper_json(wrapper: Wrapper) -> dict[str, Any]:
    return {
        "name": wrapper.name,
        "model_type": wrapper.model_type,
        "architecture": wrapper.architecture,
        "readings": list(READINGS),
        "formats": list(WRAPPER_FORMATS),
        "note": "multimodal: its text part is scored and pruned",
    }


def _draw_rows(rows: Iterable[Family], width: int) -> Iterator[str]:
    yield _row("family", "model_type", "output formats", width)
    for row in rows:
        yield _row(row.name, row.model_type, ", ".join(formats_of(row)), width)
        if row.note:
            yield textwrap.fill(row.note, width, initial_indent="    ", subsequent_indent="    ")


def _row(name: str, model_type: str, formats: str, width: int) -> str:
    if width < WIDE:
        return f"{name:<{NAME}}{model_type}\n    {formats}"
    return f"{name:<{NAME}}{model_type:<{MODEL_TYPE}}{formats}"
