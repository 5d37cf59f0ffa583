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
from tests.signals.ending import ENDS, SECONDS, ends, other_work
from tests.signals.phases import PHASES, Place, silent_listing
from tests.started import COMMAND

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="/proc tells how far a run is"),
]


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


@pytest.mark.parametrize("number", ENDS, ids=lambda number: number.name)
@pytest.mark.parametrize("phase", PHASES)
def test_a_signal_ends_it(place: Place, phase: str, number: signal.Signals) -> None:
    words, reached = PHASES[phase](place)
    variables = environment(place.hub, place.folder, **{"HF_HUB_DOWNLOAD_TIMEOUT": "60"} | place.variables)
    ends(words, reached, number, place.folder, variables)


def test_a_second_signal_adds_nothing(place: Place) -> None:
    words, reached = silent_listing(place)
    process = subprocess.Popen(
        [COMMAND, *map(str, words)],
        env=environment(place.hub, place.folder, **place.variables),
        stderr=subprocess.PIPE,
        text=True,
    )
    while not reached(process):
        time.sleep(0.01)
    begun = time.monotonic()
    for number in (signal.SIGINT, signal.SIGINT, signal.SIGTERM):
        process.send_signal(number)
        time.sleep(0.03)
    _, said = process.communicate(timeout=20)
    assert time.monotonic() - begun < SECONDS + 2 * other_work()
    assert process.returncode == 130
    assert said.splitlines() == ["interrupted"]
