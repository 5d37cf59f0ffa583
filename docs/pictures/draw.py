"""Draws the pictures of docs/: the fixture model's scores and losses, and the scores of a large model, made up."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from pathlib import Path

import gatenorm_stream
from gatenorm_stream.report.loss_picture import loss_picture
from gatenorm_stream.report.picture import score_picture
from gatenorm_stream.report.svg import svg
from gatenorm_stream.scoring.scores import LayerScore
from gatenorm_stream.scoring.selection import Choice, select

HERE = Path(__file__).parent
FIXTURE = HERE.parents[1] / "fixtures" / "sotu-5m"


def made_up(layers: int, heads: int) -> tuple[LayerScore, ...]:
    """Falling with depth, heads scattered."""
    chance = random.Random(1)
    scores = []
    for layer in range(layers):
        level = 20 * math.exp(-2 * layer / layers) * (1 + 0.3 * chance.random())
        norms = tuple(level * math.exp(chance.gauss(0, 0.5)) for _ in range(heads))
        scores.append(LayerScore(layer, math.hypot(*norms), norms))
    return tuple(scores)


def draw(name: str, title: str, scores: tuple[LayerScore, ...]) -> None:
    picture = score_picture(title, "per-head", scores, select(scores, Choice()))
    (HERE / name).write_text(svg(picture), encoding="utf-8")


draw("fixture.svg", "fixtures/sotu-5m", gatenorm_stream.score(FIXTURE))
measured = gatenorm_stream.measure(FIXTURE, text=FIXTURE.parent / "heldout.txt", tokens=256)
losses = loss_picture(replace(measured, model="fixtures/sotu-5m", text="fixtures/heldout.txt"))
(HERE / "losses.svg").write_text(svg(losses), encoding="utf-8")
draw("large.svg", "126 layers of 128 heads, made up", made_up(126, 128))
