"""The terminal that a person reads at: its width, its characters, and lines folded to it."""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
from typing import TextIO


def folded(line: str, stream: TextIO | None = None, indent: int = 2) -> str:
    """To the width of the terminal; whole where `stream` (standard output by default) is none."""
    if not (stream or sys.stdout).isatty():
        return line
    width = shutil.get_terminal_size().columns
    more = " " * indent
    return textwrap.fill(line, width, subsequent_indent=more, break_long_words=False, break_on_hyphens=False)


def table_width(widest: int = 100) -> int:
    return min(shutil.get_terminal_size().columns, widest)


def has_unicode() -> bool:
    """Whether standard output can show more than ASCII."""
    return (sys.stdout.encoding or "ascii").lower().startswith("utf")


def has_colour() -> bool:
    """Whether standard output is a terminal that shows colours, and nobody asked for none (https://no-color.org)."""
    return "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb" and sys.stdout.isatty()
