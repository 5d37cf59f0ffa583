"""Long lines, folded between words where a person reads them."""

from __future__ import annotations

import shutil
import sys
import textwrap
from typing import TextIO


def folded(line: str, stream: TextIO | None = None) -> str:
    """To the width of the terminal; whole where `stream` (standard output by default) is none."""
    if not (stream or sys.stdout).isatty():
        return line
    width = shutil.get_terminal_size().columns
    return textwrap.fill(line, width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
