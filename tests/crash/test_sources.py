"""A source that fails, shrinks or changes at every read of it: a message, never a signal, never an output."""

from __future__ import annotations

import errno

import pytest

from tests.crash.crashing import Crashing, Mode, moments, said_so

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("mode", [Mode.SHRINK, Mode.CHANGE, Mode.FAIL])
def test_at_every_read(crashing: Crashing, mode: Mode) -> None:
    """A file that changed is found whenever that was. A failing read may pass where it is tried in another way, and
    where it is the tokenizer's: the model card does without it."""
    reads, finished = crashing.run().reads, 0
    assert reads > 30
    for nth in moments(reads):
        crashing.clean()
        ended = crashing.run(mode=mode, nth=nth, reads=True, error=errno.EIO)
        crashing.restore()
        if mode is Mode.FAIL and ended.code == 0:
            finished += 1
        else:
            said_so(ended)
            assert not crashing.out.exists()
            again = crashing.run()
            assert again.code == 0 or "--restart" in again.stderr, again.stderr
            if again.code:
                assert crashing.run("--restart").code == 0
        crashing.check(complete=True)
    assert bool(finished) == (mode is Mode.FAIL)
