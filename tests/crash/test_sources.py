"""A source that fails, shrinks or changes at every read of it: a message, never a signal, never an output."""

from __future__ import annotations

import errno

import pytest

from tests.crash.crashing import Crashing, Mode, said_so

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("mode", [Mode.SHRINK, Mode.CHANGE, Mode.FAIL])
def test_at_every_read(crashing: Crashing, mode: Mode) -> None:
    reads = crashing.run().reads
    assert reads > 20
    for nth in range(1, reads + 1):
        crashing.clean()
        ended = crashing.run(mode=mode, nth=nth, reads=True, error=errno.EIO)
        crashing.restore()
        if ended.code:
            said_so(ended)
            assert not crashing.out.exists()
        else:  # what was changed had been read already, or is not needed
            crashing.check(complete=True)
        if not crashing.out.exists():
            again = crashing.run()
            assert again.code == 0 or "--restart" in again.stderr, again.stderr
            if again.code:
                assert crashing.run("--restart").code == 0
        crashing.check(complete=True)
