"""The formula against ten lines of float64, on ordinary and on nasty matrices."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatenorm_stream.families.heads import Heads
from gatenorm_stream.scoring import gate_norm
from gatenorm_stream.scoring.head_products import (
    UNFOLDED,
    ColumnHeads,
    Fold,
    NotFiniteError,
    RowHeads,
    Side,
    fold_of,
)


def brute_force(q: np.ndarray, k: np.ndarray, heads: Heads) -> dict[str, float]:
    """The three readings by their definition, forming every (hidden, hidden) product."""
    q, k = q.astype(np.float64), k.astype(np.float64)
    q_heads = q.reshape(heads.queries, heads.dim, -1)
    k_heads = np.repeat(k.reshape(heads.keys, heads.dim, -1), heads.group, axis=0)
    products = [a.T @ b for a, b in zip(q_heads, k_heads, strict=True)]
    return {
        "per-head": math.sqrt(sum(np.sum(p**2) for p in products)),
        "joint": float(np.linalg.norm(sum(products))),
        "stored": float(np.linalg.norm(q @ k.T)),
    }


def value_output_product(
    v: np.ndarray, o: np.ndarray, norm: np.ndarray, heads: Heads, dim: int | None = None
) -> list[float]:
    """Each query head's ||O_h V_g diag(n)||_F, for `v` (keys * dim, hidden) and `o` (hidden, queries * dim)."""
    dim = dim or heads.dim
    v, o, norm = (x.astype(np.float64) for x in (v, o, norm))
    norms = []
    for h in range(heads.queries):
        g = h // heads.group
        value = v[g * dim : (g + 1) * dim] * norm
        norms.append(float(np.linalg.norm(o[:, h * dim : (h + 1) * dim] @ value)))
    return norms


def rows(head_of: gate_norm.HeadOf, side: Side, fold: Fold = UNFOLDED, at_once: int = 2) -> RowHeads:
    return RowHeads(lambda which: np.stack([head_of(h).copy() for h in which]), side, fold, at_once)


def computed(q: np.ndarray, k: np.ndarray, heads: Heads) -> dict[str, float]:
    def of(x: np.ndarray) -> gate_norm.HeadOf:
        return lambda head: x[head * heads.dim : (head + 1) * heads.dim]

    left, right = rows(of(q), "left"), rows(of(k), "right")
    return {
        "per-head": math.hypot(*gate_norm.per_head(left, right, heads, range(heads.keys))),
        "joint": gate_norm.joint(of(q), of(k), heads),
        "stored": math.hypot(*gate_norm.stored(of(q), of(k), heads)),
    }


@st.composite
def projections(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, Heads]:
    """Random, low-rank, nearly cancelling and badly scaled projections of every head layout."""
    group, keys, dim = draw(st.integers(1, 4)), draw(st.integers(1, 3)), draw(st.sampled_from([1, 2, 3, 5, 8]))
    heads = Heads(group * keys, keys, dim)
    hidden = draw(st.integers(1, 24))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    q = rng.standard_normal((heads.queries * dim, hidden))
    k = rng.standard_normal((heads.keys * dim, hidden))
    match draw(st.sampled_from(["plain", "low rank", "opposed heads", "opposed rows", "orthogonal", "sparse"])):
        case "low rank":
            q = np.outer(q[:, 0], q[0])
        case "opposed heads":
            q[dim:] = -q[:-dim] if heads.queries > 1 else q[dim:]
            q *= 1 + 1e-3 * rng.standard_normal(q.shape)
        case "opposed rows":
            q[:] = q[0] * (1 + 1e-3 * rng.standard_normal((len(q), 1)))
            k[:] = k[0] * (-1.0) ** np.arange(len(k))[:, None]
        case "orthogonal":
            q[:, hidden // 2 :] *= 1e-3
            k[:, : hidden // 2] *= 1e-3
        case "sparse":
            q *= rng.random(q.shape) < 0.2
    q *= 10.0 ** draw(st.integers(-25, 25))
    k *= 10.0 ** draw(st.integers(-25, 25))
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    return q.astype(dtype), k.astype(dtype), heads


@settings(max_examples=400, deadline=None)
@given(projections())
def test_three_readings_agree_with_brute_force(case: tuple[np.ndarray, np.ndarray, Heads]) -> None:
    q, k, heads = case
    floor = 1e-7 * float(np.linalg.norm(q.astype(np.float64)) * np.linalg.norm(k.astype(np.float64)))
    for reading, expected in brute_force(q, k, heads).items():
        # what cancels below `floor` is beyond the digits of the float32 inputs' own products
        assert computed(q, k, heads)[reading] == pytest.approx(expected, rel=1e-5, abs=1e-5 * floor), reading


@pytest.mark.parametrize(("hidden", "dim", "queries", "keys"), [(512, 64, 8, 8), (768, 96, 8, 2), (320, 80, 5, 1)])
def test_at_the_widths_of_real_models(hidden: int, dim: int, queries: int, keys: int) -> None:
    heads, rng = Heads(queries, keys, dim), np.random.default_rng(1)
    q = rng.standard_normal((queries * dim, hidden)).astype(np.float32)
    k = rng.standard_normal((keys * dim, hidden)).astype(np.float32)
    assert computed(q, k, heads) == pytest.approx(brute_force(q, k, heads), rel=1e-5)


def test_blocks_of_heads_give_what_one_head_at_a_time_gives() -> None:
    """Memory for one head, for two, for all; the same array is used again by each call, as HeadReader does."""
    heads, rng = Heads(10, 5, 8), np.random.default_rng(2)
    q, k = (rng.standard_normal((n * 8, 24)).astype(np.float32) for n in (10, 5))

    def reusing(x: np.ndarray) -> gate_norm.HeadOf:
        memory = np.empty((8, 24), np.float32)

        def head(number: int) -> np.ndarray:
            memory[:] = x[8 * number : 8 * number + 8]
            return memory

        return head

    expected = brute_force(q, k, heads)
    for memory in (0, 2 * 2 * 8 * 24 * 4, 1 << 20):
        joint = gate_norm.joint(reusing(q), reusing(k), heads, memory)
        stored = gate_norm.stored(reusing(q), reusing(k), heads, memory)
        assert joint == pytest.approx(expected["joint"], rel=1e-5)
        assert math.hypot(*stored) == pytest.approx(expected["stored"], rel=1e-5)
    for at_once in (1, 3, 10):
        left, right = (rows(reusing(x), side, at_once=at_once) for x, side in ((q, "left"), (k, "right")))
        found = [gate_norm.per_head(left, right, heads, part) for part in (range(1), range(1, 4), range(4, 5))]
        assert math.hypot(*(n for part in found for n in part)) == pytest.approx(expected["per-head"], rel=1e-5)


def test_query_heads_that_cancel_within_their_group() -> None:
    """What is left of the sum is under float32's rounding of the heads: it takes float64 to see it."""
    heads, rng = Heads(2, 1, 4), np.random.default_rng(3)
    first = rng.standard_normal((4, 16)).astype(np.float32)
    second = (-first * (1 + 1e-5 * rng.standard_normal(first.shape))).astype(np.float32)
    q, k = np.vstack([first, second]), rng.standard_normal((4, 16)).astype(np.float32)
    assert computed(q, k, heads)["joint"] == pytest.approx(brute_force(q, k, heads)["joint"], rel=1e-5)


def test_worked_example() -> None:
    """One head: Q = [[1, 2]], K = [[3, 4]]: Q^T K = [[3, 4], [6, 8]], norm sqrt(125); Q K^T = [[11]]."""
    q, k = np.array([[1.0, 2.0]], np.float32), np.array([[3.0, 4.0]], np.float32)
    assert computed(q, k, Heads(1, 1, 1)) == pytest.approx(
        {"per-head": 125**0.5, "joint": 125**0.5, "stored": 11.0}
    )


def test_readings_differ_where_heads_cancel() -> None:
    """Two heads that undo each other: nothing is left jointly, everything head by head."""
    q, k = np.array([[1.0, 0.0], [-1.0, 0.0]], np.float32), np.array([[0.0, 1.0], [0.0, 1.0]], np.float32)
    assert computed(q, k, Heads(2, 2, 1)) == pytest.approx({"per-head": 2**0.5, "joint": 0.0, "stored": 0.0})


@pytest.mark.parametrize("zero", ["query", "key", "both"])
def test_zero_projections_score_zero(zero: str) -> None:
    q = np.zeros((4, 6), np.float32) if zero != "key" else np.ones((4, 6), np.float32)
    k = np.zeros((4, 6), np.float32) if zero != "query" else np.ones((4, 6), np.float32)
    assert computed(q, k, Heads(2, 2, 2)) == {"per-head": 0.0, "joint": 0.0, "stored": 0.0}


def columns(stored: np.ndarray, dim: int, rows_at_once: int, fold: Fold = UNFOLDED) -> ColumnHeads:
    """Of a stored (hidden, heads * dim); the same array is used again for each block, as the reader does."""
    memory = np.empty((rows_at_once, stored.shape[1]), stored.dtype)

    def blocks() -> Iterator[tuple[int, np.ndarray]]:
        for first in range(0, len(stored), rows_at_once):
            block = memory[: len(stored) - first]
            block[:] = stored[first : first + rows_at_once]
            yield first, block

    return ColumnHeads(blocks, range(0, stored.shape[1], dim), dim, "left", fold)


@settings(max_examples=400, deadline=None)
@given(projections(), st.integers(1, 30), st.integers(-25, 25), st.booleans())
def test_heads_that_are_columns(
    case: tuple[np.ndarray, np.ndarray, Heads], rows_at_once: int, power: int, folds_columns: bool
) -> None:
    """Outputs against values, and the other way round with the norm in what is stored as columns (GPT-2)."""
    q, v, heads = case
    norm = np.random.default_rng(abs(power)).standard_normal(q.shape[1]) * 10.0**power
    fold, o = fold_of(norm), np.ascontiguousarray(q.T)
    if folds_columns:
        left, right = columns(o, heads.dim, rows_at_once, fold), rows(_heads(v, heads), "right")
    else:
        left, right = columns(o, heads.dim, rows_at_once), rows(_heads(v, heads), "right", fold)
    found = list(gate_norm.per_head(left, right, heads, range(heads.keys)))
    expected = []
    for h in range(heads.queries):
        mine, theirs = (_heads(x, heads)(n).astype(np.float64) for x, n in ((q, h), (v, h // heads.group)))
        mine, theirs = (mine * norm, theirs) if folds_columns else (mine, theirs * norm)
        floor = 1e-7 * float(np.linalg.norm(mine) * np.linalg.norm(theirs))
        expected.append(pytest.approx(np.linalg.norm(mine.T @ theirs), rel=1e-5, abs=1e-5 * floor))
    assert found == expected


def _heads(x: np.ndarray, heads: Heads) -> gate_norm.HeadOf:
    return lambda head: x[head * heads.dim : (head + 1) * heads.dim]


@pytest.mark.parametrize("power", [-44, -40, 37])
@pytest.mark.parametrize("norm_power", [-30, 0, 30])
def test_a_norm_whose_product_leaves_float32(power: int, norm_power: int) -> None:
    """Finite weights times a finite norm are an ordinary score, where float32 has only inf, 0 or few digits."""
    heads, rng = Heads(2, 1, 3), np.random.default_rng(4)
    with np.errstate(under="ignore"):
        v = (rng.standard_normal((3, 8)) * 10.0**power).astype(np.float32)
    assert v.any()
    o, norm = rng.standard_normal((8, 6)).astype(np.float32), rng.standard_normal(8) * 10.0**norm_power
    right = rows(_heads(v, heads), "right", fold_of(norm))
    found = gate_norm.per_head(columns(o, 3, 3), right, heads, range(1))
    assert list(found) == pytest.approx(value_output_product(v, o, norm, heads), rel=1e-5)


def test_ordinary_columns_are_read_once() -> None:
    passes = []
    rng = np.random.default_rng(5)
    stored = rng.standard_normal((64, 8)).astype(np.float32)

    def blocks() -> Iterator[tuple[int, np.ndarray]]:
        passes.append(len(passes))
        yield 0, stored

    heads, v = Heads(2, 2, 4), rng.standard_normal((8, 64)).astype(np.float32)
    left, right = ColumnHeads(blocks, (0, 4), 4, "left"), rows(_heads(v, heads), "right")
    assert all(n > 0 for g in (0, 1) for n in gate_norm.per_head(left, right, heads, range(g, g + 1)))
    assert len(passes) == 1
    stored *= 1e-30
    left = ColumnHeads(blocks, (0, 4), 4, "left")
    assert all(n > 0 for g in (0, 1) for n in gate_norm.per_head(left, right, heads, range(g, g + 1)))
    assert len(passes) == 3


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("where", ["left", "right", "norm"])
def test_inf_and_nan_in_outputs_values_and_norms(value: float, where: str) -> None:
    o, v, norm = np.ones((6, 4), np.float32), np.ones((2, 6), np.float32), np.ones(6)
    {"left": o, "right": v, "norm": norm[None]}[where][-1, 1] = value
    heads = Heads(2, 1, 2)
    with pytest.raises(NotFiniteError) as caught:
        gate_norm.per_head(columns(o, 2, 4), rows(_heads(v, heads), "right", fold_of(norm)), heads, range(1))
    assert caught.value.side == where


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("projection", ["query", "key"])
@pytest.mark.parametrize("reading", ["per-head", "joint", "stored"])
def test_inf_and_nan_are_errors_that_name_the_projection(value: float, projection: str, reading: str) -> None:
    q, k = np.ones((4, 6), np.float32), np.ones((2, 6), np.float32)
    (q if projection == "query" else k)[1, 3] = value
    heads = Heads(2, 1, 2)
    compute = {
        "per-head": lambda q, k, heads: gate_norm.per_head(rows(q, "left"), rows(k, "right"), heads, range(1)),
        "joint": gate_norm.joint,
        "stored": gate_norm.stored,
    }[reading]
    with pytest.raises(NotFiniteError) as caught:
        compute(lambda h: q[2 * h : 2 * h + 2], lambda h: k[2 * h : 2 * h + 2], heads)
    assert caught.value.side == {"query": "left", "key": "right"}[projection]
