"""Measures a model: what Gate-Norm's choices cost, what choices by influence cost, and random ones beside them.

Influence must be known before it can choose, so there are two passes over the weights: the first runs the unpruned
model on the row for choosing, the second judges everything. Where so many rows of tokens would take more memory
than `STREAM_BYTES`, there are more passes.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from gatenorm_stream.measuring.decoder import Decoder, Stream
from gatenorm_stream.measuring.forward import Judged, Losses, Steps, Sublayer, TokenRow, run
from gatenorm_stream.measuring.measurement import By, MeasuredChoice
from gatenorm_stream.measuring.variants import Constant, Variant
from gatenorm_stream.scoring.scores import LayerScore
from gatenorm_stream.scoring.selection import DEFAULT_PROTECT_FIRST, Choice, default_number, select

STREAM_BYTES = 128 << 20
"""Of the rows of tokens that one pass carries from layer to layer, and of those that the first keeps for it."""
MOST_COUNTS = 5
DRAWS = 5
SHORT = 10**10
"""Parameters times tokens: a multiply-add each, some seconds in all for the many choices."""
SEED = 0

Criterion: TypeAlias = Literal["gate-norm", "influence"]


@dataclass(frozen=True)
class Texts:
    """Two rows of as many tokens: statistics and means are taken on one, losses on the other."""

    choosing: TokenRow
    judging: TokenRow


@dataclass(frozen=True)
class Study:
    """`sublayers` are the unpruned model's, `loss` its mean loss in nats a token."""

    loss: float
    sublayers: tuple[Sublayer, ...]
    choices: tuple[MeasuredChoice, ...]
    passes: int


def counts(sublayers: int) -> tuple[int, ...]:
    """How many sublayers are tried to go: one, the default number, and evenly up to a third."""
    third = max(1, sublayers // 3)
    evenly = {round(third * step / MOST_COUNTS) for step in range(1, MOST_COUNTS + 1)}
    return tuple(sorted({1, min(default_number(sublayers), third), third} | evenly - {0}))


def random_counts(sublayers: int, work: int) -> tuple[int, ...]:
    """At which of `counts` random choices are judged if nobody asks for them: the default number, and all where
    `work` is short.

    Hardly any two of them share layers, so that all would take two and a half times as long as the rest.
    """
    return counts(sublayers) if work <= SHORT else (default_number(sublayers),)


def by_influence(sublayers: Sequence[Sublayer]) -> tuple[LayerScore, ...]:
    """Influence in the place of scores, for `select`."""
    return tuple(LayerScore(s.layer, s.influence, ()) for s in sublayers)


def study(
    passes: Passes,
    scores: Sequence[LayerScore],
    *,
    draws: int | None = None,
    work: int = 0,
    by: Criterion | None = None,
) -> Study:
    """Plain and compensated choices at each of `counts`, by both criteria or the one given, and random ones beside
    them: `draws` at each, or if that is None some at `random_counts`. `work` is parameters times tokens.
    """
    numbers = counts(len(scores))
    at_random, draws = (random_counts(len(scores), work), DRAWS) if draws is None else (numbers, draws)
    asked = [] if by == "influence" else [*_asked("gate-norm", scores, numbers)]
    if by != "gate-norm":
        asked += _asked("influence", by_influence(passes.sublayers), numbers)
    for number in at_random:
        asked += _at_random(scores, number, draws)
    judged = passes.judge(asked)
    return Study(passes.loss, passes.sublayers, tuple(j.choice for j in judged), passes.made)


@dataclass(frozen=True)
class Asked:
    """A choice that is to be judged."""

    by: By
    variant: Variant


@dataclass(frozen=True)
class Judgement:
    """`constants` are what stood in the place of attention, by layer."""

    choice: MeasuredChoice
    constants: Mapping[int, Constant]


class Passes:
    """Judges choices, as many in a pass over the weights as memory allows."""

    def __init__(
        self,
        decoder: Decoder,
        texts: Texts,
        hidden: int,
        steps: Callable[[int], Steps] = lambda number: lambda done, total: None,
    ) -> None:
        """`steps` gives those of pass number 0, 1, 2 ..."""
        self._decoder = decoder
        self._texts = texts
        self._steps = steps
        self._rows = STREAM_BYTES // (4 * hidden * len(texts.judging))
        self._before: tuple[Stream, ...] = ()
        self._sublayers: tuple[Sublayer, ...] | None = None
        self._losses: Losses | None = None
        self.made = 0

    @property
    def sublayers(self) -> tuple[Sublayer, ...]:
        """Of the unpruned model."""
        if self._sublayers is None:
            self._pass([], whole=False)
        assert self._sublayers is not None
        return self._sublayers

    @property
    def losses(self) -> Losses:
        """The unpruned model's."""
        if self._losses is None:
            self._pass([], whole=True)
        assert self._losses is not None
        return self._losses

    @property
    def loss(self) -> float:
        """Their mean, in nats a token."""
        return float(self.losses.mean())

    def judge(self, asked: Sequence[Asked]) -> list[Judgement]:
        """In the order in which they are asked."""
        return [
            Judgement(_choice(one, judged.losses, self.losses), judged.constants)
            for together in self._groups(asked)
            for one, judged in self._pass(together, whole=self._losses is None)
        ]

    def _groups(self, asked: Sequence[Asked]) -> list[list[Asked]]:
        """As many together as there are rows for, beside the two of the unpruned model and what is kept of it."""
        groups: list[list[Asked]] = []
        free = 0
        for one in asked:
            if one.variant.rows > free:
                groups.append([])
                free = self._rows - 2 - len(self._before)
            groups[-1].append(one)
            free -= one.variant.rows
        return groups

    def _pass(self, asked: Sequence[Asked], whole: bool) -> list[tuple[Asked, Judged]]:
        """What is known of the unpruned model is not asked again."""
        looks = self._sublayers is None
        outcome = run(
            self._decoder,
            self._texts.choosing,
            self._texts.judging,
            [a.variant for a in asked],
            self._steps(self.made),
            looks=looks,
            whole=whole,
            keeps=looks and not asked and self._decoder.layers <= self._rows // 2,
            before=self._before,
        )
        self.made += 1
        if looks:
            self._sublayers, self._before = outcome.sublayers, outcome.before
        if whole:
            self._losses = outcome.losses
        return list(zip(asked, outcome.variants, strict=True))


def _choice(asked: Asked, losses: Losses, whole: Losses) -> MeasuredChoice:
    rises, variant = losses - whole, asked.variant
    return MeasuredChoice(
        asked.by,
        variant.dropped,
        variant.compensated,
        float(losses.mean()),
        float(rises.mean()),
        standard_error(rises),
    )


def standard_error(rises: Losses) -> float:
    """Of their mean, each token taken as drawn by itself."""
    return float(rises.std(ddof=1)) / math.sqrt(len(rises)) if len(rises) > 1 else math.inf


def _asked(by: By, scores: Sequence[LayerScore], numbers: Sequence[int]) -> Iterator[Asked]:
    for number in numbers:
        yield from _both(by, select(scores, Choice(drop=number)))


def _at_random(scores: Sequence[LayerScore], number: int, draws: int) -> Iterator[Asked]:
    """Layer 0 stays, as it does by default."""
    layers, chance = [s.layer for s in scores][DEFAULT_PROTECT_FIRST:], random.Random(SEED)
    for _ in range(draws):
        yield from _both("random", tuple(sorted(chance.sample(layers, min(number, len(layers))))))


def _both(by: By, dropped: tuple[int, ...]) -> Iterator[Asked]:
    for compensated in (False, True):
        yield Asked(by, Variant(dropped, compensated))
