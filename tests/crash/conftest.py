"""The process under test, with faults.c compiled and preloaded."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.crash.crashing import Crashing


@pytest.fixture(scope="session")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    library = tmp_path_factory.mktemp("shim") / "faults.so"
    source = Path(__file__).with_name("faults.c")
    subprocess.run(
        ["cc", "-O1", "-Wall", "-Werror", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True, timeout=60
    )
    return library


@pytest.fixture
def crashing(tmp_path: Path, shim: Path) -> Iterator[Crashing]:
    made = Crashing(tmp_path, shim)
    yield made
    made.close()
