from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatenorm_stream.sources.ranges import ByteRange, coalesce

ranges = st.tuples(st.integers(0, 60), st.integers(0, 20)).map(lambda t: ByteRange(t[0], t[0] + t[1]))


def bytes_of(many: list[ByteRange] | tuple[ByteRange, ...]) -> list[int]:
    return [n for r in many for n in range(r.start, r.stop)]


@given(st.lists(ranges))
def test_coalescing_keeps_every_byte_in_order(many: list[ByteRange]) -> None:
    joined = coalesce(many)
    assert bytes_of(joined) == bytes_of(many)
    assert all(a.stop != b.start for a, b in pairwise(joined))


@given(ranges, st.integers(1, 30))
def test_chunks_cover_the_range(whole: ByteRange, size: int) -> None:
    chunks = list(whole.chunks(size))
    assert bytes_of(chunks) == bytes_of([whole])
    assert all(0 < len(c) <= size for c in chunks)


@given(ranges, st.integers(1, 30), st.integers(1, 30))
def test_blocks_begin_where_blocks_do(whole: ByteRange, size: int, align: int) -> None:
    blocks = list(whole.blocks(size * align, align))
    assert bytes_of(blocks) == bytes_of([whole])
    assert all(0 < len(b) <= size * align for b in blocks)
    assert all(b.start % align == 0 for b in blocks[1:])


def test_parts_stay_within() -> None:
    assert ByteRange(10, 20).part(2, 5) == ByteRange(12, 15)
    with pytest.raises(ValueError, match="not within"):
        ByteRange(10, 20).part(5, 11)
    with pytest.raises(ValueError, match="not a byte range"):
        ByteRange(5, 4)
