from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.checkpoints import llama_config
from tests.hub.hub_repository import Repository
from tests.hub.hub_runs import FIXTURE, Done, Run, contents, environment
from tests.hub.hub_server import Hub
from tests.started import UTF8, Started


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    bins = tmp_path / "bins"
    bins.mkdir()
    (bins / "config.json").write_text(json.dumps(llama_config()))
    (bins / "pytorch_model.bin").write_bytes(b"pickle")
    repositories = {
        "org/sotu": Repository(FIXTURE),
        "org/gated": Repository(FIXTURE, gated=True),
        "org/private": Repository(FIXTURE, private=True),
        "org/bins": Repository(bins),
        "org/xet": Repository(FIXTURE, xet=True),
    }
    with Hub(repositories, token="hf_secret") as hub:
        yield hub


@pytest.fixture
def run(started: Started, hub: Hub, tmp_path: Path) -> Run:
    def run(*args: object, **changes: str) -> Done:
        return started.run([*map(str, args)], tmp_path, environment(hub, tmp_path, **changes))

    return run


@pytest.fixture(scope="session")
def pruned_locally(started: Started, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("local")
    done = started.run([str(FIXTURE), "--out", "out", "--quiet"], folder, {**os.environ, **UTF8})
    assert done.returncode == 0, done.stderr
    return contents(folder / "out")
