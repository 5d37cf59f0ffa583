"""Any signal ends any phase within two seconds: with one line, its exit code, and nothing that looks finished."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.conftest import FIXTURE
from tests.hub.hub_repository import Repository
from tests.hub.hub_runs import environment
from tests.hub.hub_server import Hub
from tests.signals.phases import PHASES, Place
from tests.started import COMMAND

pytestmark = pytest.mark.slow

SECONDS = 2.0
LONGEST_WAY = 120
ENDS = {signal.SIGINT: (130, "interrupted"), signal.SIGTERM: (143, "terminated")}


@pytest.fixture(scope="session")
def slow_disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    library = tmp_path_factory.mktemp("slow") / "slow_disk.so"
    command = ["cc", "-O1", "-Wall", "-Werror", "-shared", "-fPIC", "-o", str(library)]
    subprocess.run([*command, str(Path(__file__).with_name("slow_disk.c")), "-ldl"], check=True, timeout=60)
    return library


@pytest.fixture
def place(tmp_path: Path, slow_disk: Path) -> Iterator[Place]:
    with Hub({"org/sotu": Repository(FIXTURE)}, token="hf_secret") as hub, ExitStack() as closing:
        yield Place(tmp_path, hub, slow_disk, closing)


def busy_machine() -> float:
    """Seconds that it takes to start and end a process: what a machine with other work adds to anything."""
    begun = time.monotonic()
    subprocess.run([sys.executable, "-c", "pass"], check=True)
    return time.monotonic() - begun


@pytest.mark.parametrize("number", ENDS, ids=lambda number: number.name)
@pytest.mark.parametrize("phase", PHASES)
def test_a_signal_ends_it(place: Place, phase: str, number: signal.Signals) -> None:
    words, reached = PHASES[phase](place)
    variables = environment(place.hub, place.folder, **{"HF_HUB_DOWNLOAD_TIMEOUT": "60"} | place.variables)
    with open(place.folder / "stderr", "w") as stderr:
        process = subprocess.Popen(
            [COMMAND, *map(str, words)],
            env=variables,
            cwd=place.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            text=True,
        )
    latest = time.monotonic() + LONGEST_WAY
    try:
        while not reached(process):
            assert process.poll() is None, (place.folder / "stderr").read_text()
            assert time.monotonic() < latest
            time.sleep(0.01)
        time.sleep(0.2)
        assert process.poll() is None
        begun = time.monotonic()
        process.send_signal(number)
        process.wait(60)
        seconds = time.monotonic() - begun
    finally:
        process.kill()
        process.wait()
    code, word = ENDS[number]
    said = (place.folder / "stderr").read_text()
    assert process.returncode == code, said
    assert seconds < SECONDS + 2 * busy_machine()
    assert said.splitlines()[-1].startswith(word)
    assert said.count(word) == 1
    assert "Traceback" not in said
    assert not (place.folder / "out").exists()
