"""Every source keeps the same promises: a directory, the Hub, the Hub whose bytes are kept, the Hub cache."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gatenorm_stream.sources.open import open_source
from tests.hub.hub_repository import Repository
from tests.hub.hub_runs import environment
from tests.hub.hub_server import Hub
from tests.source_checks import CHECKS, Check, write_files

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_a_local_directory(check: Check, tmp_path: Path) -> None:
    folder = write_files(tmp_path / "model")
    source = open_source(folder)
    check(source, folder)
    source.close()


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What each kind of remote or once remote source got wrong."""
    place = tmp_path_factory.mktemp("sources")
    folder = write_files(place / "model")
    with Hub({"org/files": Repository(folder)}) as hub:

        def checked(kept: str = "", **changes: str) -> Any:
            words = [sys.executable, "-m", "tests.source_checks", "org/files", str(folder), kept]
            variables = environment(hub, place, **changes)
            done = subprocess.run(words, cwd=ROOT, env=variables, capture_output=True, text=True, timeout=60)
            assert done.returncode == 0, done.stderr
            return json.loads(done.stdout)

        results = {"hub": checked(), "kept": checked(str(place / "kept"))}
        download = "import huggingface_hub; huggingface_hub.snapshot_download('org/files')"
        subprocess.run(
            [sys.executable, "-c", download], env=environment(hub, place), check=True, capture_output=True
        )
        results["cache"] = checked(HF_HUB_OFFLINE="1")
    return results


@pytest.mark.slow
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("kind", ["hub", "kept", "cache"])
def test_on_the_hub(kind: str, check: Check, found: dict[str, Any]) -> None:
    assert found[kind]["remote"] == (kind != "cache")
    assert check.__name__ not in found[kind]["failed"], found[kind]["failed"][check.__name__]
