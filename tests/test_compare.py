"""`compare`: two models or readings side by side, and how far their rankings agree."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatenorm_stream.scoring.comparison import correlation, ranked
from tests.checkpoints import llama_config, llama_shapes, random_tensors, write_checkpoint
from tests.conftest import FIXTURE, Run, golden

scores = st.lists(st.integers(0, 20).map(float), min_size=2, max_size=30)


def spearman(a: list[float], b: list[float]) -> float | None:
    return correlation(ranked(a), ranked(b))


def test_two_readings(run: Run, tmp_path: Path) -> None:
    (tmp_path / "sotu-5m").symlink_to(FIXTURE)
    golden("compare.txt", run("compare", "sotu-5m", "--other-reading", "stored").stdout)


@pytest.mark.slow
def test_in_ascii_where_names_are_too_long(run: Run, tmp_path: Path) -> None:
    (tmp_path / "sotu-5m-by-a-long-name").symlink_to(FIXTURE)
    ascii = {"PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii", "COLUMNS": "64"}
    done = run("compare", "sotu-5m-by-a-long-name", FIXTURE / ".", "--drop", "4", "--reading", "joint", **ascii)
    assert done.stdout.isascii()
    assert max(map(len, done.stdout.splitlines())) <= 64
    assert "rank correlation (Spearman) +1.000" in done.stdout
    assert "of the 4 that would go, 4 in common" in done.stdout


def test_ranks_and_bars_in_40_columns(run: Run, tmp_path: Path) -> None:
    (tmp_path / "sotu-5m").symlink_to(FIXTURE)
    done = run("compare", "sotu-5m", "--other-reading", "stored", COLUMNS="40")
    golden("compare-40.txt", done.stdout)
    assert max(map(len, done.stdout.splitlines())) <= 40


def test_json(run: Run, llama: Path) -> None:
    other = write_checkpoint(llama.parent / "other", random_tensors(llama_shapes(), seed=1), llama_config())
    report = json.loads(run("compare", llama, other, "--json", "--drop", "2").stdout)
    assert list(report) == ["sides", "layers", "rank_correlation", "dropped_by_both"]
    for n, model in enumerate((llama, other)):
        alone = json.loads(run("score", model, "--json", "--drop", "2").stdout)
        assert [layer["scores"][n] for layer in report["layers"]] == [layer["score"] for layer in alone["layers"]]
        assert report["sides"][n] == {"model": str(model), "reading": "per-head", "dropped": alone["dropped"]}
    pairs = zip(*(layer["ranks"] for layer in report["layers"]), strict=True)
    assert report["rank_correlation"] == pytest.approx(correlation(*pairs))


def test_models_of_other_layers(run: Run, llama: Path) -> None:
    done = run("compare", llama, FIXTURE)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: one has 4 attention layers up to 3, the other 12 up to 11; only")


def test_nothing_to_compare_with(run: Run) -> None:
    done = run("compare", FIXTURE)
    assert done.returncode == 2
    assert "second model" in done.stderr


def test_ranks_of_ties_are_the_mean_of_their_places() -> None:
    assert ranked([3.0, 1.0, 3.0, 2.0, 3.0]) == [4.0, 1.0, 4.0, 2.0, 4.0]


def test_a_textbook_value() -> None:
    """The second side's ranks are 1, 4, 2, 5, 3, so 1 - 6 * (4 + 1 + 1 + 4) / (5 * 24); and one with ties."""
    assert spearman([1, 2, 3, 4, 5], [1, 3, 2, 6, 2.5]) == pytest.approx(0.5)
    assert spearman([1, 2, 3, 4, 5], [1, 1, 2, 6, 4]) == pytest.approx(0.8720815992723809)


@given(scores, st.randoms())
def test_it_depends_on_the_order_alone(a: list[float], random: st.DataObject) -> None:
    b = list(a)
    random.shuffle(b)  # type: ignore[attr-defined]
    found = spearman(a, b)
    assert found is None or -1 - 1e-12 <= found <= 1 + 1e-12
    assert (found is None) == (len(set(a)) == 1)
    if found is not None:
        assert spearman(b, a) == pytest.approx(found)
        assert spearman([math.exp(x) for x in a], [x**3 - 5 for x in b]) == pytest.approx(found)
        assert spearman(a, [-x for x in b]) == pytest.approx(-found)
        assert spearman(a, a) == pytest.approx(1)
