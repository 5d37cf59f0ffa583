"""The formula against ten lines of float64, on ordinary and on nasty matrices."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatenorm_stream.families.heads import Heads
from gatenorm_stream.scoring import gate_norm
from gatenorm_stream.scoring.head_products import ColumnHeads, NotFiniteError, RowHeads, Side


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


def rows(head_of: gate_norm.HeadOf, side: Side, at_once: int = 2) -> RowHeads:
    return RowHeads(head_of, lambda which: np.stack([head_of(h).copy() for h in which]), side, at_once)


def computed(q: np.ndarray, k: np.ndarray, heads: Heads) -> dict[str, float]:
    def of(x: np.ndarray) -> gate_norm.HeadOf:
        return lambda head, rows=slice(None): x[head * heads.dim : (head + 1) * heads.dim][rows]

    query, key = rows(of(q), "query"), rows(of(k), "key")
    return {
        "per-head": math.hypot(*gate_norm.per_head(query, key, heads, range(heads.keys))),
        "joint": gate_norm.joint(of(q), of(k), heads, rows_at_once=3),
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

        def head(number: int, rows: slice = slice(None), /) -> np.ndarray:
            part = memory[rows]
            part[:] = x[8 * number : 8 * number + 8][rows]
            return part

        return head

    expected = brute_force(q, k, heads)
    for memory in (0, 2 * 2 * 8 * 24 * 4, 1 << 20):
        joint = gate_norm.joint(reusing(q), reusing(k), heads, memory)
        stored = gate_norm.stored(reusing(q), reusing(k), heads, memory)
        assert joint == pytest.approx(expected["joint"], rel=1e-5)
        assert math.hypot(*stored) == pytest.approx(expected["stored"], rel=1e-5)
    for at_once in (1, 3, 10):
        query, key = rows(reusing(q), "query", at_once=at_once), rows(reusing(k), "key", at_once=at_once)
        found = [gate_norm.per_head(query, key, heads, part) for part in (range(1), range(1, 4), range(4, 5))]
        assert math.hypot(*(n for part in found for n in part)) == pytest.approx(expected["per-head"], rel=1e-5)


@pytest.mark.parametrize("memory", [1 << 10, 1 << 20])
@pytest.mark.parametrize(("queries", "keys"), [(3, 3), (6, 3)])
def test_joint_where_the_sides_have_other_columns(queries: int, keys: int, memory: int) -> None:
    """As where the key alone is a latent's: its heads stand in an orthonormal basis of fewer columns."""
    heads, rng = Heads(queries, keys, 4), np.random.default_rng(0)
    q, k = rng.standard_normal((queries * 4, 16)), rng.standard_normal((keys * 4, 6))
    basis = np.linalg.qr(rng.standard_normal((16, 6)))[0].T

    def of(x: np.ndarray) -> gate_norm.HeadOf:
        return lambda head, rows=slice(None): x[head * 4 : head * 4 + 4][rows]

    for narrow in (of(k), of(k.astype(np.float32))):
        found = gate_norm.joint(of(q), narrow, heads, memory, rows_at_once=3)
        assert found == pytest.approx(brute_force(q, k @ basis, heads)["joint"], rel=1e-5)


def test_joint_reads_a_query_head_once_where_one_side_fits() -> None:
    """Memory for all key heads, which is too little for both sides at once."""
    heads, rng, read = Heads(10, 5, 8), np.random.default_rng(3), list[int]()
    q, k = (rng.standard_normal((n * 8, 600)).astype(np.float32) for n in (10, 5))

    def query(number: int, rows: slice = slice(None), /) -> np.ndarray:
        found = range(8 * number, 8 * number + 8)[rows]
        read.extend(found)
        return q[found.start : found.stop]

    def key(number: int, rows: slice = slice(None), /) -> np.ndarray:
        return k[8 * number : 8 * number + 8][rows]

    joint = gate_norm.joint(query, key, heads, memory=k.nbytes, rows_at_once=4)
    assert joint == pytest.approx(brute_force(q, k, heads)["joint"], rel=1e-5)
    asked_for_its_dtype = 1
    assert sorted(read[asked_for_its_dtype:]) == list(range(80))


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


def columns(stored: np.ndarray, dim: int, rows_at_once: int, side: Side) -> ColumnHeads:
    """Of a stored (hidden, heads * dim); the same array is used again for each block, as the reader does."""
    memory = np.empty((rows_at_once, stored.shape[1]), stored.dtype)

    def blocks() -> Iterator[np.ndarray]:
        for first in range(0, len(stored), rows_at_once):
            block = memory[: len(stored) - first]
            block[:] = stored[first : first + rows_at_once]
            yield block

    return ColumnHeads(blocks, range(0, stored.shape[1], dim), dim, side)


@given(projections(), st.integers(1, 30))
def test_heads_that_are_columns(case: tuple[np.ndarray, np.ndarray, Heads], rows_at_once: int) -> None:
    """As GPT-2 stores them."""
    q, k, heads = case
    query = columns(np.ascontiguousarray(q.T), heads.dim, rows_at_once, "query")
    key = columns(np.ascontiguousarray(k.T), heads.dim, rows_at_once, "key")
    found = list(gate_norm.per_head(query, key, heads, range(heads.keys)))
    expected = []
    for h in range(heads.queries):
        mine, theirs = (_heads(x, heads)(n).astype(np.float64) for x, n in ((q, h), (k, h // heads.group)))
        floor = 1e-7 * float(np.linalg.norm(mine) * np.linalg.norm(theirs))
        expected.append(pytest.approx(np.linalg.norm(mine.T @ theirs), rel=1e-5, abs=1e-5 * floor))
    assert found == expected


def _heads(x: np.ndarray, heads: Heads) -> gate_norm.HeadOf:
    return lambda head, rows=slice(None): x[head * heads.dim : (head + 1) * heads.dim][rows]


def test_ordinary_columns_are_read_once() -> None:
    passes: list[int] = []
    rng = np.random.default_rng(5)
    stored = rng.standard_normal((64, 8)).astype(np.float32)

    def blocks() -> Iterator[np.ndarray]:
        passes.append(len(passes))
        yield stored

    heads, k = Heads(2, 2, 4), rng.standard_normal((8, 64)).astype(np.float32)
    query, key = ColumnHeads(blocks, (0, 4), 4, "query"), rows(_heads(k, heads), "key")
    assert all(n > 0 for g in (0, 1) for n in gate_norm.per_head(query, key, heads, range(g, g + 1)))
    assert len(passes) == 1
    stored *= 1e-30
    query = ColumnHeads(blocks, (0, 4), 4, "query")
    assert all(n > 0 for g in (0, 1) for n in gate_norm.per_head(query, key, heads, range(g, g + 1)))
    assert len(passes) == 3


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("side", ["query", "key"])
def test_inf_and_nan_in_columns(value: float, side: Side) -> None:
    q, k = np.ones((6, 4), np.float32), np.ones((6, 2), np.float32)
    (q if side == "query" else k)[-1, 1] = value
    with pytest.raises(NotFiniteError) as caught:
        gate_norm.per_head(columns(q, 2, 4, "query"), columns(k, 2, 4, "key"), Heads(2, 1, 2), range(1))
    assert caught.value.side == side


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("projection", ["query", "key"])
@pytest.mark.parametrize("reading", ["per-head", "joint", "stored"])
def test_inf_and_nan_are_errors_that_name_the_projection(value: float, projection: str, reading: str) -> None:
    q, k = np.ones((4, 6), np.float32), np.ones((2, 6), np.float32)
    (q if projection == "query" else k)[1, 3] = value
    heads = Heads(2, 1, 2)
    computes: dict[str, Callable[..., object]] = {
        "per-head": lambda q, k, heads: gate_norm.per_head(rows(q, "query"), rows(k, "key"), heads, range(1)),
        "joint": gate_norm.joint,
        "stored": gate_norm.stored,
    }
    with pytest.raises(NotFiniteError) as caught:
        computes[reading](
            lambda h, rows=slice(None): q[2 * h : 2 * h + 2][rows],
            lambda h, rows=slice(None): k[2 * h : 2 * h + 2][rows],
            heads,
        )
    assert caught.value.side == projection
