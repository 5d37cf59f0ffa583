"""What was measured, as tables for people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import mean

from gatenorm_stream.measuring.measure import Saved
from gatenorm_stream.measuring.measured_output import MeasuredOutput
from gatenorm_stream.measuring.measurement import By, Measurement
from gatenorm_stream.scoring.selection import default_number

WIDE, SIDE_BY_SIDE = 76, 54
"""Columns in which what is saved, and what random choices cost, find room beside the rest."""
GROUPS: tuple[tuple[By, str], ...] = (("gate-norm", "by Gate-Norm"), ("influence", "by influence"))
AT_RANDOM: tuple[tuple[By, str], ...] = (("random", "at random"),)


def measurement_lines(measured: Measurement, saved: Saved, width: int, seconds: float) -> Iterator[str]:
    """Layers first, then what each number of them costs, gone by either criterion, and what it saves."""
    yield from _heading(measured)
    yield ""
    yield from _layers(measured)
    yield ""
    yield "rise of the loss, nats a token"
    there = {c.by for c in measured.choices}
    groups, draws = [g for g in GROUPS if g[0] in there], [g for g in AT_RANDOM if g[0] in there]
    if width < SIDE_BY_SIDE:
        yield from _costs(measured, groups, None)
        yield from _costs(measured, draws, None) if draws else ()
    else:
        yield from _costs(measured, [*groups, *draws], saved if width >= WIDE else None)
    yield ""
    yield from _notes(measured, seconds)


def output_lines(measured: MeasuredOutput) -> Iterator[str]:
    """An output's loss, and its source's if that was run."""
    gone = f", without attention in {len(measured.pruned)} layers" if measured.pruned else ""
    yield f"{measured.model}{gone}: loss {measured.loss:.3f} nats a token, perplexity {measured.perplexity:.4g}"
    if measured.rise is not None:
        rise = f"the output costs {measured.rise:+.3f} (standard error {measured.error:.3f})"
        yield f"{measured.against}: loss {measured.before:.3f}; {rise}"
    yield f"on {measured.tokens} tokens of {measured.text}"


def _heading(measured: Measurement) -> Iterator[str]:
    yield f"{measured.model}: loss {measured.loss:.3f} nats a token, perplexity {measured.perplexity:.4g}, unpruned"
    yield f"on {measured.tokens} tokens of {measured.text}; chosen on {measured.tokens} others"


def _layers(measured: Measurement) -> Iterator[str]:
    yield f"{'layer':>5}{'Gate-Norm':>13}{'influence':>11}{'constant':>10}"
    for m in measured.layers:
        yield f"{m.layer:>5}{m.score:>#13.5g}{m.influence:>11.4f}{100 * m.constant:>8.0f} %"


def _costs(measured: Measurement, groups: Sequence[tuple[By, str]], saved: Saved | None) -> Iterator[str]:
    """With what is saved, if there is room for it, beside what it costs."""
    heads = "".join(f"{title:>16}" for _, title in groups)
    below = "".join(f"{'plain':>8}{'const.':>8}" for _ in groups)
    yield f"{'gone':>5}{heads}" + (f"{'saved':>9}" if saved else "")
    yield f"{'':>5}{below}" + (f"{'params':>9}{'cache':>7}{'file':>7}" if saved else "")
    for count in measured.counts:
        cells = "".join(
            _cell(measured, by, count, compensated) for by, _ in groups for compensated in (False, True)
        )
        if cells.strip():
            yield f"{count:>5}{cells}".rstrip() if saved is None else f"{count:>5}{cells}{_sizes(saved, count)}"


def _sizes(saved: Saved, count: int) -> str:
    shares = ((saved.parameters, 8), (saved.cache, 6), (saved.bytes, 6))
    return "".join(f"{100 * count * share:>{room}.1f}%" for share, room in shares)


def _cell(measured: Measurement, by: By, count: int, compensated: bool) -> str:
    found = measured.of(by, count, compensated)
    return f"{mean(c.rise for c in found):>+8.3f}" if found else f"{'':>8}"


def _notes(measured: Measurement, seconds: float) -> Iterator[str]:
    error = max((c.error for c in measured.choices), default=0.0)
    yield "const.: the mean of its output takes the place of what is gone (--compensate)"
    gone = default_number(len(measured.layers))
    if draws := measured.of("random", gone, compensated=True):
        rises = sorted(c.rise for c in draws)
        span = f" draws, with constants from {rises[0]:+.3f} to {rises[-1]:+.3f}" if len(rises) > 1 else " draw"
        others = any(c.by == "random" and len(c.dropped) != gone for c in measured.choices)
        yield f"at random: the mean of {len(draws)}{span}" + (f" ({gone} gone)" if others else "")
    passes = f"{measured.passes} passes over the weights, {seconds:.0f} s"
    yield f"standard error of a rise: {error:.3f} at most; {passes}"
