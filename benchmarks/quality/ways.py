"""Block D's choices: which layers' attention each criterion takes at each count, and which were drawn at random."""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from benchmarks.quality.criteria import PROTECTED, first, last, lowest

SHARES = (12, 8, 6, 5, 4, 3)
DRAWS = 20


class Way(NamedTuple):
    criterion: str
    count: str
    layers: tuple[int, ...]


def counts(layers: int) -> dict[str, int]:
    """Shares of the layers, rounded down, at least 1."""
    return {f"L/{n}": max(1, layers // n) for n in SHARES}


def spread(layers: int, count: int) -> tuple[int, ...]:
    """Evenly over layers 1 to L - 1."""
    return tuple(PROTECTED + (2 * i + 1) * (layers - PROTECTED) // (2 * count) for i in range(count))


def drawn(layers: int, count: int, start: int, seed: int) -> list[tuple[int, ...]]:
    """Uniform and independent of each other, from layer `start` on."""
    chance = random.Random(f"{seed} {count} {start}")
    return [tuple(sorted(chance.sample(range(start, layers), count))) for _ in range(DRAWS)]


def ways(scores: Mapping[str, Sequence[float]], layers: int, seed: int) -> Iterator[Way]:
    """`scores`: by criterion, one a layer; the lowest go first."""
    ranked = {**scores, "first": first(layers), "last": last(layers)}
    for label, count in counts(layers).items():
        for name, values in ranked.items():
            yield Way(name, label, lowest(values, count))
        yield Way("spread", label, spread(layers, count))
        for start in (1, 2):
            for layers_drawn in drawn(layers, count, start, seed):
                yield Way(f"random {start}", label, layers_drawn)


def greedy(loss: Callable[[tuple[int, ...]], float], layers: int) -> list[Way]:
    """At each count: one after the other, each time the one that costs least."""
    chosen: tuple[int, ...] = ()
    steps = []
    for _ in range(max(counts(layers).values())):
        candidates = [tuple(sorted((*chosen, i))) for i in range(PROTECTED, layers) if i not in chosen]
        chosen = min(candidates, key=loss)
        steps.append(chosen)
    return [Way("greedy", label, steps[count - 1]) for label, count in counts(layers).items()]
