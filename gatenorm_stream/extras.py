"""How to install what an extra brings, in words that hold for this very installation.

On an index, the name of this package is not ours to promise: whoever registered it could be anyone. So it is the
folder or wheel that this one was installed from.
"""

from __future__ import annotations

import json
import shlex
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from urllib.parse import unquote, urlsplit

NAME = "gatenorm-stream"


def install(extra: str) -> str:
    """What to type, or where that is not known, what to do."""
    if origin := _origin():
        return f"pip install {shlex.quote(f'{origin}[{extra}]')}"
    return f"install {NAME} with its extra [{extra}] from where you got it"


def _origin() -> str | None:
    """The folder, wheel or archive that this was installed from, or the checkout that it is run from."""
    with suppress(PackageNotFoundError, ValueError, LookupError, TypeError):
        told = json.loads(distribution(NAME).read_text("direct_url.json") or "{}")
        parts = urlsplit(str(told["url"]))
        if parts.scheme == "file" and Path(unquote(parts.path)).exists():
            return unquote(parts.path)
    checkout = Path(__file__).parents[1]
    return str(checkout) if (checkout / "pyproject.toml").is_file() else None
