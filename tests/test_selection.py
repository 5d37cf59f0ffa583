from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatenorm_stream.errors import SelectionError
from gatenorm_stream.scoring.scores import LayerScore
from gatenorm_stream.scoring.selection import Choice, protection_mattered, rank, select


def scored(*scores: float) -> list[LayerScore]:
    return [LayerScore(n, s, ()) for n, s in enumerate(scores)]


choices = st.builds(
    Choice,
    drop=st.none() | st.integers(-1, 12),
    share=st.none() | st.floats(-0.5, 1.5),
    layers=st.none() | st.lists(st.integers(-1, 12)).map(tuple),
    protect_first=st.none() | st.integers(0, 12),
    protect_last=st.integers(0, 12),
)


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=12), choices)
def test_what_is_selected_keeps_every_promise(scores: list[float], choice: Choice) -> None:
    layers = scored(*scores)
    try:
        dropped = select(layers, choice)
    except SelectionError as error:
        assert "\n" not in str(error)
        return
    assert dropped == tuple(sorted(set(dropped)))
    assert 0 < len(dropped) < len(layers)
    assert not any(n < (choice.protect_first or 0) or n >= len(layers) - choice.protect_last for n in dropped)
    if choice.layers is not None:
        assert set(dropped) == set(choice.layers)
    else:
        first = 1 if choice.protect_first is None else choice.protect_first
        free = [s for s in layers if first <= s.layer < len(layers) - choice.protect_last]
        stay = [s.score for s in free if s.layer not in dropped]
        assert all(layers[n].score <= score for n in dropped for score in stay)


def test_the_default_is_an_eighth_rounded_down() -> None:
    for layers, expected in [(2, 1), (9, 1), (15, 1), (16, 2), (30, 3), (32, 4), (40, 5), (80, 10)]:
        assert len(select(scored(*range(layers)), Choice())) == expected


def test_of_equal_scores_the_deeper_layer_goes_first() -> None:
    assert [s.layer for s in rank(scored(1, 1, 0, 1))] == [2, 3, 1, 0]
    assert select(scored(5, 1, 1, 1), Choice(drop=2)) == (2, 3)


def test_layer_0_is_protected_unless_asked_for() -> None:
    scores = scored(0, 3, 2, 1)
    assert select(scores, Choice(drop=1)) == (3,)
    assert select(scores, Choice(drop=1, protect_first=0)) == (0,)
    assert select(scores, Choice(layers=(0,))) == (0,)
    assert protection_mattered(scores, (3,), Choice(drop=1))
    assert not protection_mattered(scores, (0,), Choice(drop=1, protect_first=0))


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        (Choice(drop=4), "can't drop 4 attention sublayers of 4"),
        (Choice(drop=3, protect_last=1), "2 are protected"),
        (Choice(drop=0), "drops nothing"),
        (Choice(share=1.0), "not between 0 and 1"),
        (Choice(layers=()), "names no layer"),
        (Choice(layers=(4,)), "there is no layer 4"),
        (Choice(layers=(0, 1, 2, 3)), "can't drop all 4"),
        (Choice(layers=(3,), protect_last=1), "protected at the same time"),
        (Choice(share=float("nan")), "not between 0 and 1"),
    ],
)
def test_impossible_choices(choice: Choice, message: str) -> None:
    with pytest.raises(SelectionError, match=message):
        select(scored(4, 3, 2, 1), choice)
