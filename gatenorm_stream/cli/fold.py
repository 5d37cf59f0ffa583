"""The terminal that a person reads at: its width, its characters, and lines folded to it."""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
from typing import TextIO


def folded(line: str, stream: TextIO | None = None, indent: int = 2) -> str:
    """To the width of the terminal, or on standard output to COLUMNS; else whole, for what reads it next.

    An error that goes elsewhere than to a terminal is one line, whatever COLUMNS says.
    """
    if not (_asked_for_a_width() and stream is None) and not (stream or sys.stdout).isatty():
        return line
    width = shutil.get_terminal_size().columns
    more = " " * indent
    return textwrap.fill(line, width, subsequent_indent=more, break_long_words=False, break_on_hyphens=False)


def with_command(words: str, command: str) -> str:
    """The command never folded, so that it is copied as one line: below the words where it doesn't fit behind."""
    line = f"{words} {command}"
    return line if folded(line) == line else f"{folded(words)}\n{command}"


def table_width(widest: int = 100) -> int:
    return min(shutil.get_terminal_size().columns, widest)


def has_unicode() -> bool:
    """Whether standard output can show more than ASCII."""
    return (sys.stdout.encoding or "ascii").lower().startswith("utf")


def has_colour() -> bool:
    """Whether standard output is a terminal that shows colours, and nobody asked for none (https://no-color.org)."""
    return "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb" and sys.stdout.isatty()


def _asked_for_a_width() -> bool:
    asked = os.environ.get("COLUMNS", "")
    return asked.isdecimal() and int(asked) > 0
