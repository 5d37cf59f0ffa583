"""The command, run on repositories of the stand-in Hub."""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

from tests.hub.hub_server import Hub

FIXTURE = Path(__file__).parents[2] / "fixtures" / "sotu-5m"

Done = subprocess.CompletedProcess[str]
Run = Callable[..., Done]


def environment(hub: Hub, folder: Path, **changes: str) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGING"))}
    return {
        **kept,
        "HF_ENDPOINT": hub.endpoint,
        "HF_HOME": str(folder / "hf-home"),
        "HF_HUB_DOWNLOAD_TIMEOUT": "1",
        "NO_COLOR": "1",
        "PYTHONUTF8": "1",
        **changes,
    }


def contents(folder: Path) -> dict[str, str]:
    """Digests of all files but those that name the source."""
    return {
        p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in folder.rglob("*")
        if p.is_file() and p.name not in ("gatenorm.json", "gatenorm.svg", "README.md")
    }
