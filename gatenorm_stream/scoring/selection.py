"""Which attention sublayers go: the lowest scores among the layers that are not protected."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from gatenorm_stream.errors import SelectionError
from gatenorm_stream.scoring.scores import LayerScore

DEFAULT_SHARE = 0.125  # docs/evidence.md, "How many?"
DEFAULT_PROTECT_FIRST = 1


@dataclass(frozen=True)
class Choice:
    """What a user asked for: a number, a share of all layers, the layers themselves, or as many as keep the
    measured rise of the loss at `max_rise` nats a token or below; at most one is given.

    `protect_first` and `protect_last` layers are never chosen by score. None for `protect_first` means the
    default, which explicit `layers` override.
    """

    drop: int | None = None
    share: float | None = None
    layers: tuple[int, ...] | None = None
    protect_first: int | None = None
    protect_last: int = 0
    max_rise: float | None = None

    def check(self) -> None:
        """Raises SelectionError for what contradicts itself, whatever the model."""
        if [self.drop, self.share, self.layers, self.max_rise].count(None) < 3:
            raise SelectionError("drop, share, layers and max_rise exclude each other; give one")
        if self.max_rise is not None and not 0 <= self.max_rise < math.inf:
            raise SelectionError(f"--max-rise {self.max_rise:g} is no limit; give nats a token, 0 or more")


def rank(scores: Iterable[LayerScore]) -> list[LayerScore]:
    """Least coupled first; of equal scores the deeper layer first."""
    return sorted(scores, key=lambda s: (s.score, -s.layer))


def select(scores: Sequence[LayerScore], choice: Choice) -> tuple[int, ...]:
    """The layers whose attention goes, in rising order.

    Raises SelectionError if the choice can't be met, or would leave no attention at all.
    """
    choice.check()
    count = len(scores)
    first = DEFAULT_PROTECT_FIRST if choice.protect_first is None else choice.protect_first
    if choice.layers is not None:
        return _explicit(choice, [s.layer for s in scores])
    candidates = _free(scores, choice)
    number = _number(choice, count)
    if number >= count:
        raise SelectionError(
            f"can't drop {number} attention sublayers of {count}: at least one must stay; use --drop {count - 1} "
            "or less"
        )
    if number > len(candidates):
        raise SelectionError(
            f"can't drop {number} of {count} attention sublayers: {count - len(candidates)} are protected "
            f"(--protect-first {first}, --protect-last {choice.protect_last}); use --drop {len(candidates)} "
            "or less, or protect fewer"
        )
    return tuple(sorted(s.layer for s in candidates[:number]))


def select_up_to_half(scores: Sequence[LayerScore], choice: Choice) -> list[tuple[int, ...]]:
    """The choices of 1, 2, 3 ... layers among which `choice.max_rise` is looked for.

    Raises SelectionError as `select` does if not even one can go.
    """
    numbers = range(1, max(1, min(half(len(scores)), len(_free(scores, choice)))) + 1)
    return [select(scores, replace(choice, drop=number, max_rise=None)) for number in numbers]


def half(count: int) -> int:
    """The most of so many sublayers that `max_rise` takes: what is left without more is another model."""
    return max(1, count // 2)


def _free(scores: Sequence[LayerScore], choice: Choice) -> list[LayerScore]:
    """Those that are not protected, least coupled first."""
    first = DEFAULT_PROTECT_FIRST if choice.protect_first is None else choice.protect_first
    return [s for s in rank(scores) if first <= s.layer <= scores[-1].layer - choice.protect_last]


def _number(choice: Choice, count: int) -> int:
    if choice.drop is not None:
        if choice.drop < 1:
            raise SelectionError(f"--drop {choice.drop} drops nothing; give 1 to {count - 1}")
        return choice.drop
    share = DEFAULT_SHARE if choice.share is None else choice.share
    if not 0 < share < 1:
        raise SelectionError(f"--share {share:g} is not between 0 and 1; 0.2 drops a fifth of the sublayers")
    return _share_of(count, share)


def default_number(count: int) -> int:
    """How many of so many sublayers go if nobody says how many."""
    return _share_of(count, DEFAULT_SHARE)


def _share_of(count: int, share: float) -> int:
    return max(1, int(share * count + 1e-9))


def _explicit(choice: Choice, candidates: Sequence[int]) -> tuple[int, ...]:
    layers = tuple(sorted(set(choice.layers or ())))
    if not layers:
        raise SelectionError("--layers names no layer; give for example 3,7-9")
    last = candidates[-1]
    if outside := sorted(set(layers) - set(candidates)):
        if len(candidates) == last + 1:
            raise SelectionError(f"there is no layer {outside[0]}: the model's layers are 0 to {last}")
        having = ", ".join(map(str, candidates))
        raise SelectionError(f"layer {outside[0]} has no softmax attention; these layers have: {having}")
    protected = [n for n in layers if n < (choice.protect_first or 0) or n > last - choice.protect_last]
    if protected:
        raise SelectionError(f"layer {protected[0]} is asked for by --layers and protected at the same time")
    if len(layers) == len(candidates):
        raise SelectionError(f"can't drop all {len(candidates)} attention sublayers: at least one must stay")
    return layers


def protection_mattered(scores: Sequence[LayerScore], dropped: tuple[int, ...], choice: Choice) -> bool:
    """Whether the default protection of the first layer kept a layer that its score would have sent."""
    by_default = choice.layers is None and choice.protect_first is None
    lowest = {s.layer for s in rank(scores)[: len(dropped)]}
    return by_default and bool(lowest & set(range(DEFAULT_PROTECT_FIRST)))
