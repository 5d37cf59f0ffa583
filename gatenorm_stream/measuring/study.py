"""Measures a model: what Gate-Norm's choices cost, what choices by influence cost, and random ones beside them.

Influence must be known before it can choose, so there are two passes over the weights: the first runs the unpruned
model with the choices by Gate-Norm and the random ones, the second those by influence. Where so many rows of tokens
would take more memory than `STREAM_BYTES`, there are more passes.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from gatenorm_stream.measuring.decoder import Decoder
from gatenorm_stream.measuring.forward import Constant, Judged, Losses, Outcome, Sublayer, TokenRow, Variant, run
from gatenorm_stream.measuring.measurement import By, MeasuredChoice
from gatenorm_stream.scoring.scores import LayerScore
from gatenorm_stream.scoring.selection import DEFAULT_PROTECT_FIRST, Choice, default_number, select

STREAM_BYTES = 128 << 20
"""Of the rows of tokens that one pass carries from layer to layer."""
MOST_COUNTS = 5
SEED = 0

Steps = Callable[[int, int, int], None]
"""Called as steps(pass, layers done, layers in all); passes count from 0."""


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


def by_influence(sublayers: Sequence[Sublayer]) -> tuple[LayerScore, ...]:
    """Influence in the place of scores, for `select`."""
    return tuple(LayerScore(s.layer, s.influence, ()) for s in sublayers)


def study(
    decoder: Decoder,
    texts: Texts,
    scores: Sequence[LayerScore],
    *,
    hidden: int,
    draws: int = 5,
    steps: Steps = lambda number, done, total: None,
) -> Study:
    """Plain and compensated choices by each criterion at each of `counts`; at the default one `draws` random ones.

    Random ones at every count would take most of the time.
    """
    numbers = counts(len(scores))
    passes = Passes(decoder, texts, hidden, steps)
    first = [*_asked("gate-norm", scores, numbers), *_at_random(scores, draws)]
    judged = passes.judge(first)
    judged += passes.judge([*_asked("influence", by_influence(passes.sublayers), numbers)])
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

    def __init__(self, decoder: Decoder, texts: Texts, hidden: int, steps: Steps) -> None:
        self._decoder = decoder
        self._texts = texts
        self._steps = steps
        row_bytes = 4 * hidden * len(texts.judging)
        self._at_once = max(1, (STREAM_BYTES // row_bytes - 2) // 2)
        self._whole: Outcome | None = None
        self.made = 0

    @property
    def sublayers(self) -> tuple[Sublayer, ...]:
        """Of the unpruned model."""
        return self._unpruned.sublayers

    @property
    def loss(self) -> float:
        """The unpruned model's, in nats a token."""
        return float(self._unpruned.losses.mean())

    def judge(self, asked: Sequence[Asked]) -> list[Judgement]:
        """In the order in which they are asked."""
        return [
            Judgement(_choice(one, judged.losses, self._unpruned.losses), judged.constants)
            for start in range(0, len(asked), self._at_once)
            for one, judged in self._pass(asked[start : start + self._at_once])
        ]

    @property
    def _unpruned(self) -> Outcome:
        if self._whole is None:
            self._pass([])
        assert self._whole
        return self._whole

    def _pass(self, asked: Sequence[Asked]) -> list[tuple[Asked, Judged]]:
        outcome = run(
            self._decoder,
            self._texts.choosing,
            self._texts.judging,
            [a.variant for a in asked],
            partial(self._steps, self.made),
        )
        self.made += 1
        self._whole = self._whole or outcome
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


def _at_random(scores: Sequence[LayerScore], draws: int) -> Iterator[Asked]:
    """Layer 0 stays, as it does by default."""
    layers = [s.layer for s in scores][DEFAULT_PROTECT_FIRST:]
    number, chance = default_number(len(scores)), random.Random(SEED)
    for _ in range(draws):
        yield from _both("random", tuple(sorted(chance.sample(layers, min(number, len(layers))))))


def _both(by: By, dropped: tuple[int, ...]) -> Iterator[Asked]:
    for compensated in (False, True):
        yield Asked(by, Variant(dropped, compensated))
