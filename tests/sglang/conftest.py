"""SGLang in an environment of its own; where it is not installed, nothing here is collected."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

TESTS = Path(__file__).parents[1]

if (found := find_spec("sglang")) and found.origin:  # this very folder has no origin
    pass
else:
    collect_ignore_glob = ["test_*.py"]
