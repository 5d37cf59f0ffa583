"""The functions: their examples run, they print nothing, and their types are seen by others."""

from __future__ import annotations

import doctest
import os
import pydoc
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import gatenorm_stream
from gatenorm_stream import api
from tests.conftest import COMMAND, FIXTURE

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"


@pytest.mark.slow
def test_the_examples_in_docstrings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    globs = {**vars(api), "folder": str(tmp_path)}
    done = doctest.testmod(api, extraglobs=globs, optionflags=doctest.ELLIPSIS | doctest.IGNORE_EXCEPTION_DETAIL)
    assert done.attempted > 15
    assert done.failed == 0


def test_it_offers_what_it_says() -> None:
    assert gatenorm_stream.__all__ == api.__all__
    assert all(hasattr(gatenorm_stream, name) for name in gatenorm_stream.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'prunes'"):
        gatenorm_stream.prunes  # noqa: B018


def test_help_shows_the_functions() -> None:
    shown = pydoc.plain(pydoc.render_doc(gatenorm_stream))
    assert re.search(r"prune\(\s*plan: '?Plan", shown)  # 3.13 breaks lines, 3.14 drops quotes
    assert "__getattr__" not in shown
    assert f"VERSION\n    {gatenorm_stream.__version__}" in shown


@pytest.mark.parametrize(
    ("mistake", "says"),
    [
        ({"reading": "perhead"}, "there is no reading perhead; give one of per-head, joint"),
        ({"format": "noop"}, "there is no format noop; give auto, no-op"),
        ({"engines": ["lama.cpp"]}, "there is no engine lama.cpp; give some of transformers, llama.cpp"),
        ({"drop": 2, "share": 0.2}, "drop, share, layers and max_rise exclude each other"),
    ],
)
def test_a_word_that_means_nothing(mistake: dict[str, Any], says: str) -> None:
    with pytest.raises(gatenorm_stream.GateNormError, match=re.escape(says)):
        gatenorm_stream.plan(FIXTURE, **mistake)


def test_nothing_is_printed(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    plan = gatenorm_stream.plan(FIXTURE)
    gatenorm_stream.prune(plan, tmp_path / "out")
    gatenorm_stream.verify(tmp_path / "out")
    assert capfd.readouterr() == ("", "")


def test_scores_of_another_model(llama: Path) -> None:
    with pytest.raises(gatenorm_stream.GateNormError, match="are not those of"):
        gatenorm_stream.plan(llama, scores=gatenorm_stream.score(FIXTURE))


def test_others_see_the_types() -> None:
    """`make check` has mypy read examples/ by them."""
    assert (Path(gatenorm_stream.__file__).parent / "py.typed").is_file()


@pytest.mark.slow
def test_sweep(tmp_path: Path) -> None:
    done = _example("sweep.py", FIXTURE, tmp_path / "plans")
    assert [line.split()[0] for line in done.splitlines()] == [str(n) for n in range(1, 11)]
    plan = gatenorm_stream.read_plan(str(tmp_path / "plans" / "drop-3.json"))
    assert plan == gatenorm_stream.plan(FIXTURE, drop=3)
    subprocess.run(
        [COMMAND, FIXTURE, "--dry-run", "--plan", tmp_path / "plans" / "drop-3.json"],
        check=True,
        capture_output=True,
    )


@pytest.mark.slow
def test_score() -> None:
    rows = [line.split() for line in _example("score.py", FIXTURE).splitlines()]
    assert [int(layer) for layer, _ in rows[:3]] == [9, 10, 8]


def _example(name: str, *args: object) -> str:
    done = subprocess.run(
        [sys.executable, EXAMPLES / name, *map(str, args)],
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout
