"""Half-open byte ranges."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class ByteRange:
    """The bytes `start <= offset < stop` of a file."""

    start: int
    stop: int

    def __post_init__(self) -> None:
        if not 0 <= self.start <= self.stop:
            raise ValueError(f"not a byte range: {self.start}..{self.stop}")

    def __len__(self) -> int:
        return self.stop - self.start

    def part(self, start: int, stop: int) -> ByteRange:
        """The range `start..stop` counted from this range's own start; raises ValueError if it leaves it."""
        if not 0 <= start <= stop <= len(self):
            raise ValueError(f"{start}..{stop} is not within the {len(self)} bytes of {self}")
        return ByteRange(self.start + start, self.start + stop)

    def chunks(self, size: int) -> Iterator[ByteRange]:
        """Consecutive pieces of at most `size` bytes."""
        for start in range(self.start, self.stop, size):
            yield ByteRange(start, min(start + size, self.stop))

    def blocks(self, size: int, align: int) -> Iterator[ByteRange]:
        """As `chunks`, after a first piece that ends at a multiple of `align`."""
        first = ByteRange(self.start, min(aligned(self.start, align), self.stop))
        yield from (first,) if first else ()
        yield from ByteRange(first.stop, self.stop).chunks(size)


def aligned(position: int, align: int) -> int:
    """The first multiple of `align` from `position` on."""
    return -(-position // align) * align


def coalesce(ranges: Iterable[ByteRange]) -> tuple[ByteRange, ...]:
    """The same bytes in the same order, with ranges that touch end to start joined."""
    joined: list[ByteRange] = []
    for r in ranges:
        if joined and joined[-1].stop == r.start:
            joined[-1] = ByteRange(joined[-1].start, r.stop)
        else:
            joined.append(r)
    return tuple(joined)
