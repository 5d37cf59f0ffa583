from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))

from checkpoints import llama_config
from conftest import COMMAND
from hub_repository import Repository
from hub_runs import FIXTURE, Done, Run, contents, environment
from hub_server import Hub


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
def run(hub: Hub, tmp_path: Path) -> Run:
    def run(*args: object, **changes: str) -> Done:
        return subprocess.run(
            [COMMAND, *map(str, args)],
            cwd=tmp_path,
            env=environment(hub, tmp_path, **changes),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )

    return run


@pytest.fixture(scope="session")
def pruned_locally(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    out = tmp_path_factory.mktemp("local") / "out"
    subprocess.run([COMMAND, str(FIXTURE), "--out", str(out), "--quiet"], check=True)
    return contents(out)
