"""Bars where one score is many times the rest."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatenorm_stream.report.scale import MANY, scale_of
from gatenorm_stream.report.score_table import score_table
from gatenorm_stream.scoring.scores import LayerScore

scores = st.lists(st.floats(0, 1e9), min_size=1, max_size=60)


def layers(values: list[float]) -> tuple[LayerScore, ...]:
    return tuple(LayerScore(n, value, ()) for n, value in enumerate(values))


@given(scores)
def test_bars_fit_and_keep_their_order(values: list[float]) -> None:
    scale = scale_of(values)
    shares = [scale.share(value) for value in sorted(values)]
    assert shares == sorted(shares)
    assert all(0 <= share <= 1 for share in shares)
    cut = [value for value in values if scale.breaks(value)]
    assert len(cut) <= max(1, len(values) // 8)
    assert all(value >= MANY * scale.end * 0.999 for value in cut)


@pytest.mark.parametrize("unicode", [True, False])
@pytest.mark.parametrize("width", [32, 34, 40, 60, 80])
def test_a_broken_bar_is_told_from_the_others(unicode: bool, width: int) -> None:
    text = score_table(layers([2816.0, 966.0, 922.0, 254.0]), (3,), width=width, unicode=unicode)
    mark = "╱╱" if unicode else "//"
    head, *rows = text.splitlines()
    assert max(map(len, text.splitlines())) <= width
    broken = [row for row in rows if mark in row]
    assert [row.split()[1] for row in broken] == (["0"] if width >= 40 else [])
    assert (f"{mark} cut short" in head) == (width >= 60)


def test_colour_is_for_rows_that_go() -> None:
    text = score_table(layers([3.0, 2.0, 1.0]), (2,), colour=True)
    assert [line.startswith("\x1b[33m") for line in text.splitlines()] == [False, True, False, False]
