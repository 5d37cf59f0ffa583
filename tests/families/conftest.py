"""One tiny checkpoint of each case, made by its stock class and pruned by the installed command."""

from __future__ import annotations

import os
from importlib.util import find_spec

import pytest

from tests.families.tiny_checkpoints import checkpoint  # noqa: F401, a fixture

collect_ignore_glob = [] if find_spec("torch") and find_spec("transformers") else ["test_*.py"]
os.environ["HF_HUB_OFFLINE"] = "1"


@pytest.fixture
def load_pruned(caplog):
    """load_pruned(out, case, stock): by the file that travels with it, without a warning, of the stock class."""
    from tests.families import tiny

    def load(out, case, stock):
        caplog.clear()
        model = tiny.load(out, case, trust_remote_code=True)
        assert not caplog.records, caplog.text
        assert isinstance(model, type(stock))
        return model

    return load
