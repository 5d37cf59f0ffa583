"""A stranger's text, as it may be shown to people: in a terminal, in Markdown, in HTML.

What a terminal obeys or a reader does not see (C0 and C1 controls, bidi controls, invisible and unassigned
characters, lone surrogates) is written as an escape, so that a name looks like what it is.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
_MARKUP = re.compile(r"[\\`*{}\[\]<>|~$&@]|(?<!\w)_|_(?!\w)|(?<=:)(?=//)")


def printable(text: str, keep: str = "") -> str:
    """With an escape for all that is not seen, but for the characters in `keep`."""
    if text.isprintable():
        return text
    return "".join(c if c in keep or unicodedata.category(c) not in _UNSEEN else ascii(c)[1:-1] for c in text)


def listed(names: Sequence[str], most: int) -> str:
    """The first `most` of them, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def markdown(text: str) -> str:
    """For running text and headings of Markdown: no markup, no HTML, no link comes of it."""
    return _MARKUP.sub(r"\\\g<0>", printable(text))


def as_code(text: str) -> str:
    """As a span of code, fenced by more backticks than stand in it."""
    text = printable(text)
    fence = "`" * (max((len(run) for run in re.findall("`+", text)), default=0) + 1)
    edge = " " if text[:1] in ("`", " ", "") or text[-1:] in ("`", " ") else ""
    return f"{fence}{edge}{text}{edge}{fence}"
