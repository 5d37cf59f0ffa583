"""Outputs on a GPU (nox -s gpu); where there is none, nothing here is collected."""

from __future__ import annotations

import os
from importlib.util import find_spec

from tests.families.tiny_checkpoints import checkpoint  # noqa: F401, a fixture

os.environ["HF_HUB_OFFLINE"] = "1"


def has_gpu() -> bool:
    if not (find_spec("torch") and find_spec("transformers")):
        return False
    import torch

    return torch.cuda.is_available()


collect_ignore_glob = [] if has_gpu() else ["test_*.py"]
