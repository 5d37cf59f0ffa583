"""The same faults while the source is fetched: the next run believes what was kept of it only if it is sound."""

from __future__ import annotations

import errno
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.crash.crashing import Crashing, Mode, first, moments, said_so
from tests.hub.hub_repository import Repository
from tests.hub.hub_server import Hub

pytestmark = pytest.mark.slow


@pytest.fixture
def fetching(tmp_path: Path, shim: Path) -> Iterator[Crashing]:
    with Hub({}, token="hf_secret") as hub:
        places = {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path / "hf-home")}
        made = Crashing(tmp_path, shim, "org/m", places)
        hub.repositories["org/m"] = Repository(made.source)
        yield made
        made.close()


def test_killed_at_every_change(fetching: Crashing) -> None:
    whole = fetching.run()
    assert whole.code == 0, whole.stderr
    print(f"{len(whole.changes)} calls that change files")
    for nth in moments(len(whole.changes)):
        fetching.clean()
        assert fetching.run(mode=Mode.KILL, nth=nth).code == -signal.SIGKILL
        fetching.finish()


@pytest.mark.parametrize("error", first("EIO", "ENOSPC"))
def test_failing_at_every_change(fetching: Crashing, error: str) -> None:
    """Only to make a directory that is there already, and to clear away what was fetched, may fail unnoticed."""
    unnoticed = set()
    for nth in moments(len(fetching.run().changes)):
        fetching.clean()
        failed = fetching.run(mode=Mode.FAIL, nth=nth, error=getattr(errno, error))
        if failed.code == 0:
            unnoticed.add(failed.changes[nth - 1])
            fetching.check(complete=True)
        else:
            said_so(failed)
        fetching.finish()
    assert unnoticed <= {"mkdir", "copy_file_range", "unlinkat", "rmdir"}
