"""What was measured, as tables for people."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import mean

from gatenorm_stream.measuring.measure import Saved
from gatenorm_stream.measuring.measurement import By, Measurement
from gatenorm_stream.scoring.selection import default_number

WIDE = 76
GROUPS: tuple[tuple[By, str], ...] = (("gate-norm", "by Gate-Norm"), ("influence", "by influence"))


def measurement_lines(measured: Measurement, saved: Saved, width: int, seconds: float) -> Iterator[str]:
    """Layers first, then what each number of them costs, gone by either criterion, and what it saves."""
    yield from _heading(measured)
    yield ""
    yield from _layers(measured)
    yield ""
    yield from _costs(measured, saved, width >= WIDE)
    yield ""
    yield from _notes(measured, seconds)


def _heading(measured: Measurement) -> Iterator[str]:
    yield f"{measured.model}: loss {measured.loss:.3f} nats a token, perplexity {measured.perplexity:.4g}, unpruned"
    yield f"on {measured.tokens} tokens of {measured.text}; chosen on {measured.tokens} others"


def _layers(measured: Measurement) -> Iterator[str]:
    yield f"{'layer':>5}{'Gate-Norm':>13}{'influence':>11}{'constant':>10}"
    for m in measured.layers:
        yield f"{m.layer:>5}{m.score:>#13.5g}{m.influence:>11.4f}{100 * m.constant:>8.0f} %"


def _costs(measured: Measurement, saved: Saved, wide: bool) -> Iterator[str]:
    """`wide` has room for what is saved beside it."""
    draws = any(c.by == "random" for c in measured.choices)
    groups = (*GROUPS, *((("random", "at random"),) if draws else ()))
    heads = "".join(f"{title:>16}" for _, title in groups)
    below = "".join(f"{'plain':>8}{'const.':>8}" for _ in groups)
    yield "rise of the loss, nats a token"
    yield f"{'gone':>5}{heads}" + (f"{'saved':>9}" if wide else "")
    yield f"{'':>5}{below}" + (f"{'params':>9}{'cache':>7}{'file':>7}" if wide else "")
    for count in measured.counts:
        cells = "".join(
            _cell(measured, by, count, compensated) for by, _ in groups for compensated in (False, True)
        )
        sizes = "".join(
            f"{100 * count * share:>{room}.1f}%"
            for share, room in ((saved.parameters, 8), (saved.cache, 6), (saved.bytes, 6))
        )
        yield f"{count:>5}{cells}" + (sizes if wide else "")


def _cell(measured: Measurement, by: By, count: int, compensated: bool) -> str:
    found = measured.of(by, count, compensated)
    return f"{mean(c.rise for c in found):>+8.3f}" if found else f"{'':>8}"


def _notes(measured: Measurement, seconds: float) -> Iterator[str]:
    error = max((c.error for c in measured.choices), default=0.0)
    yield "const.: the mean of what it put out stands in the place of what is gone (--compensate)"
    if draws := measured.of("random", default_number(len(measured.layers)), compensated=True):
        rises = sorted(c.rise for c in draws)
        yield f"at random: the mean of {len(draws)} draws, with constants from {rises[0]:+.3f} to {rises[-1]:+.3f}"
    passes = f"{measured.passes} passes over the weights, {seconds:.0f} s"
    yield f"standard error of a rise: {error:.3f} at most; {passes}"
