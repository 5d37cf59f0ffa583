"""Which output format a pruned model gets, and which engines will run it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gatenorm_stream.checkpoint.tensors import Checkpoint
from gatenorm_stream.errors import FormatError
from gatenorm_stream.families.model import Model
from gatenorm_stream.formats.deci import DECI_NO_OP
from gatenorm_stream.formats.edit import Format, Obstacle
from gatenorm_stream.formats.engines import ENGINES
from gatenorm_stream.formats.gguf_zeroed import GGUF_ZEROED
from gatenorm_stream.formats.no_op import NO_OP
from gatenorm_stream.formats.transformers import TRANSFORMERS
from gatenorm_stream.formats.zeroed import NO_CONSTANTS, ZEROED
from gatenorm_stream.sources.source import Kind

FORMATS = {f.name: f for f in (NO_OP, TRANSFORMERS, ZEROED)}
"""In the order in which `auto` tries them; the last one expresses every model."""
GGUF_FORMATS = {f.name: f for f in (DECI_NO_OP, GGUF_ZEROED)}
"""What the formats of these names are in a GGUF file."""


@dataclass(frozen=True)
class FormatChoice:
    """`limits` tell which engines can't run `format`; `passed_over` why `auto` did not take the ones before it."""

    format: Format
    limits: tuple[Obstacle, ...]
    passed_over: tuple[tuple[Format, Obstacle], ...] = ()
    cautions: tuple[str, ...] = ()

    @property
    def holds_constants(self) -> bool:
        """Whether constants that stand in the place of attention are written."""
        return NO_CONSTANTS not in self.cautions

    @property
    def engines(self) -> tuple[str, ...]:
        """The engines that run the result."""
        return tuple(e for e in ENGINES if not any(e in limit.engines for limit in self.limits))


def formats_for(checkpoint: Checkpoint) -> Mapping[str, Format]:
    return GGUF_FORMATS if checkpoint.kind is Kind.GGUF else FORMATS


def choose_format(
    model: Model,
    dropped: tuple[int, ...],
    name: str = "auto",
    engines: tuple[str, ...] = (),
    *,
    compensated: bool = False,
) -> FormatChoice:
    """The format called `name`, or for "auto" the first that expresses the model for `engines`.

    `compensated` says that constants stand in the place of what goes.

    Raises FormatError if the format named can't express it, with the field that stands in the way; and for a format
    or an engine that is not known.
    """
    passed_over: list[tuple[Format, Obstacle]] = []
    formats = formats_for(model.checkpoint)
    if name not in ("auto", *FORMATS):
        raise FormatError(f"there is no format {name}; give auto, {', '.join(FORMATS)}")
    if unknown := [e for e in engines if e not in ENGINES]:
        raise FormatError(f"there is no engine {unknown[0]}; give some of {', '.join(ENGINES)}")
    if name not in ("auto", *formats):
        raise FormatError(f"a GGUF file has no format {name}; use --format {' or '.join(formats)}")
    for format_ in formats.values() if name == "auto" else (formats[name],):
        limits = format_.limits(model, dropped, compensated)
        blocking = _blocking(limits.obstacles, engines)
        if not blocking:
            return FormatChoice(format_, limits.obstacles, tuple(passed_over), limits.cautions)
        passed_over += ((format_, obstacle) for obstacle in blocking)
    obstacles = tuple(obstacle for _, obstacle in passed_over)
    way_out = obstacles[0].way_out or _way_out(name, obstacles, engines)
    raise FormatError(f"{name} can't express this model: {describe(obstacles[0])}; {way_out}")


def describe(obstacle: Obstacle) -> str:
    stopped = "" if len(obstacle.engines) == len(ENGINES) else f" in {', '.join(sorted(obstacle.engines))}"
    return f"{obstacle.field} stands in the way{stopped} ({obstacle.reason})"


def _blocking(limits: tuple[Obstacle, ...], engines: tuple[str, ...]) -> tuple[Obstacle, ...]:
    if engines:
        return tuple(limit for limit in limits if limit.engines & set(engines))
    return tuple(limit for limit in limits if not limit.notice)


def _way_out(name: str, obstacles: tuple[Obstacle, ...], engines: tuple[str, ...]) -> str:
    able = [e for e in ENGINES if not any(e in o.engines for o in obstacles)]
    other = "" if name == TRANSFORMERS.name else "transformers, or "
    others = f"use --format {other}zeroed, which keeps every shape"
    if engines or not able:
        return others
    named = " ".join(f"--engine {e}" for e in able)
    return f"say which engines must run it ({named}), or {others}"
