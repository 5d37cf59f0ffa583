"""The package as it is installed: its version, and what to type for one of its extras.

On an index, the name of this package is not ours to promise: whoever registered it could be anyone. So an extra
comes from the folder or wheel that the package itself was installed from.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, distribution, version

NAME = "gatenorm-stream"
VERSION = version(NAME)


def install(extra: str) -> str:
    """What to type, or where that is not known, what to do."""
    import shlex

    if origin := _origin():
        return f"pip install {shlex.quote(f'{origin}[{extra}]')}"
    return f"install {NAME} with its extra [{extra}] from where you got it"


def _origin() -> str | None:
    """The folder, wheel or archive that this was installed from, or the checkout that it is run from."""
    import json
    from contextlib import suppress
    from pathlib import Path
    from urllib.parse import unquote, urlsplit

    with suppress(PackageNotFoundError, ValueError, LookupError, TypeError):
        told = json.loads(distribution(NAME).read_text("direct_url.json") or "{}")
        parts = urlsplit(str(told["url"]))
        if parts.scheme == "file" and Path(unquote(parts.path)).exists():
            return unquote(parts.path)
    checkout = Path(__file__).parents[1]
    return str(checkout) if (checkout / "pyproject.toml").is_file() else None
