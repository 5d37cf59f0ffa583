"""These tests need an environment with dask.distributed (nox -s dask); elsewhere they are not collected."""

from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.checkpoints import llama_config, llama_shapes, random_tensors, write_checkpoint
from tests.dask.clusters import LAYERS

collect_ignore_glob = [] if find_spec("distributed") else ["test_*.py"]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    config = llama_config(num_hidden_layers=LAYERS)
    return write_checkpoint(tmp_path / "model", random_tensors(llama_shapes(LAYERS)), config, shards=3)
