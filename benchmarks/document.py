"""What of a document is filled from stored results: the text between two marks."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path


def between(text: str, begin: str, end: str, content: str) -> str:
    """`text` with `content` in place of what stands between the marks. Raises ValueError if there is no `begin`."""
    before, rest = text.split(begin)
    return f"{before}{begin}{content}{rest[rest.index(end) :]}"


def fill_or_check(description: str | None, document: Path, filled: Callable[[str], str]) -> None:
    """The command of a script: writes the document anew, or with --check exits with 1 if that changed it."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--check", action="store_true")
    args = parser.parse_args()
    text = document.read_text("utf-8")
    new = filled(text)
    if args.check:
        sys.exit(0 if new == text else f"{document} is not what the results say; run {Path(sys.argv[0]).name}")
    document.write_text(new, "utf-8")
