"""What will be done to a model, as frozen data that can be printed, saved and applied again."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from os import PathLike
from pathlib import Path
from typing import Any, NoReturn

from gatenorm_stream.checkpoint.json_text import MAX_JSON_BYTES, parse_json
from gatenorm_stream.errors import PlanError
from gatenorm_stream.families.model import Model
from gatenorm_stream.families.sizes import MOST_HEADS_IN_ALL, MOST_LAYERS
from gatenorm_stream.families.table import FAMILIES
from gatenorm_stream.formats.choice import FORMATS
from gatenorm_stream.formats.edit import Constants
from gatenorm_stream.formats.engines import ENGINES
from gatenorm_stream.names import is_safe
from gatenorm_stream.planning.constants import FLOAT_BYTES, constants_as_text, read_constants
from gatenorm_stream.planning.measured import Measured, read_measured
from gatenorm_stream.scoring.readings import READINGS
from gatenorm_stream.scoring.scores import LARGEST_SCORE, LayerScore
from gatenorm_stream.scoring.selection import Choice
from gatenorm_stream.sources.source import Kind
from gatenorm_stream.spelling import did_you_mean
from gatenorm_stream.version import VERSION

SCHEMA = 1
LONGEST_TEXT = 8192
"""Characters of a name or path in a plan; twice the longest path that Linux knows."""
INFLUENCE, NAMED = "influence", "named"
"""What a plan is `by`, if not by Gate-Norm: the second where layers were named and nothing could be scored."""
_GGUF_FAMILY = re.compile(r"gguf/[\w.-]{1,64}", re.ASCII)


@dataclass(frozen=True)
class Plan:
    """`dropped` are the layers whose attention goes; `engines` those that were asked to run the result.

    `constants` stand in the place of that attention: one vector for each layer of `dropped`, or none at all.
    `reading` is that of Gate-Norm by which the layers were chosen; without one, `scores` hold their influence.
    `choice` is what was asked for, which explains `dropped` and decides nothing any more. `also` are files of the
    source that travel beyond those that always do. If they could not be `scored`, `scores` are zeros. `scores_of`
    names the model that they are of where it is not the source, whose weights are packed.
    """

    source: str
    revision: str | None
    family: str
    reading: str | None
    scores: tuple[LayerScore, ...]
    dropped: tuple[int, ...]
    format: str
    engines: tuple[str, ...] = ()
    tool_version: str = VERSION
    choice: Choice | None = None
    constants: Constants = field(default_factory=dict, hash=False)
    measured: Measured | None = None
    also: tuple[str, ...] = ()
    scored: bool = True
    scores_of: str | None = None

    @property
    def own_measurement(self) -> Measured | None:
        """What was measured of this very model."""
        return None if self.measured is None or self.measured.elsewhere else self.measured

    @property
    def model(self) -> str:
        """The source as a command names it."""
        return f"{self.source}@{self.revision}" if self.revision else self.source

    @property
    def kind(self) -> Kind:
        return Kind.GGUF if _is_gguf(self.family) else Kind.SAFETENSORS

    def to_json(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "tool": "gatenorm-stream",
            "tool_version": self.tool_version,
            "source": self.source,
            "revision": self.revision,
            "family": self.family,
            **({"reading": self.reading} if self.reading else {"by": INFLUENCE if self.scored else NAMED}),
            **({"scores_of": self.scores_of} if self.scores_of else {}),
            "layers": [
                {"layer": s.layer, "score": s.score if self.scored else None, "heads": list(s.heads)}
                for s in self.scores
            ],
            "dropped": list(self.dropped),
            "format": self.format,
            "engines": list(self.engines),
            **({"choice": _asked(self.choice)} if self.choice else {}),
            **({"also": list(self.also)} if self.also else {}),
            **({"measured": self.measured.to_json()} if self.measured else {}),
            **({"constants": constants_as_text(self.constants)} if self.constants else {}),
        }


def read_plan(path: str | PathLike[str]) -> Plan:
    """A plan saved by `--dry-run --json`, or the gatenorm.json of an output. Raises PlanError."""
    path = Path(path)
    if path.exists() and not path.is_file():
        raise PlanError(f"{path} is not a regular file; give a gatenorm.json")
    try:
        with open(path, "rb") as file:
            data = parse_json(file.read(MAX_JSON_BYTES + 1))
    except OSError as error:
        raise PlanError(f"{path} can't be read: {error.strerror}{did_you_mean(path)}") from error
    except ValueError as error:
        raise PlanError(f"{path} is not valid JSON ({error}); give a gatenorm.json") from error
    return plan_from_json(data, str(path))


def plan_from_json(data: Any, where: str) -> Plan:
    """Checks every field, since a plan may have been edited by hand. Raises PlanError naming the field."""

    def bad(field: str, want: str, remedy: str = "give a gatenorm.json") -> NoReturn:
        raise PlanError(f"{where} is not a usable plan: {field} must be {want}; {remedy}")

    if not isinstance(data, dict):
        raise PlanError(f"{where} is not a plan; give a gatenorm.json")
    if data.get("schema") != SCHEMA:
        bad("schema", f"{SCHEMA}, the version that this release reads")

    for name, value in [*data.items(), *_entries(data.get("measured"))]:
        if isinstance(value, str) and len(value) > LONGEST_TEXT:
            bad(name, f"a text of at most {LONGEST_TEXT} characters")

    def text(field: str, allowed: tuple[str, ...] | None = None) -> str:
        value = data.get(field)
        if not isinstance(value, str) or (allowed is not None and value not in allowed):
            bad(field, f"one of {', '.join(allowed)}" if allowed else "a string")
        return value

    named = data.get("by") == NAMED and "reading" not in data
    revision, dropped, engines = data.get("revision"), data.get("dropped"), data.get("engines")
    if revision is not None and not isinstance(revision, str):
        bad("revision", "a string or null")
    by_influence = data.get("by") == INFLUENCE and "reading" not in data
    reading = None if by_influence or named else text("reading")
    if reading is not None and reading not in READINGS:
        found = repr(reading if len(reading) < 40 else f"{reading[:40]}…")
        bad("reading", f"one of {', '.join(READINGS)}, not {found}", "score the model anew")
    scores = _unscored(data.get("layers")) if named else _scores(data.get("layers"))
    if not scores:
        bad(
            "layers",
            f"a list of layer, score and heads, in order, at most {MOST_LAYERS} and {MOST_HEADS_IN_ALL} of them",
        )
    if not isinstance(dropped, list) or not _rising(dropped) or not set(dropped) < {s.layer for s in scores}:
        bad("dropped", "a rising list of some, not all, of the layers that have scores")
    if not isinstance(engines, list) or not all(e in ENGINES for e in engines):
        bad("engines", f"a list of {', '.join(ENGINES)}")
    choice = _choice(data["choice"]) if "choice" in data else None
    if "choice" in data and not choice:
        bad(
            "choice",
            "what was asked for: drop, share, layers, max_rise, protect_first, protect_last, as far as given",
        )
    also = data.get("also", [])
    if not isinstance(also, list) or not all(isinstance(name, str) and is_safe(name) for name in also):
        bad("also", "a list of names of files")
    constants = read_constants(data["constants"], tuple(dropped)) if "constants" in data else {}
    if constants is None:
        bad("constants", "a vector of finite float32 in base64 for each dropped layer, all of one length")
    measured = read_measured(data["measured"], len(scores)) if "measured" in data else None
    if "measured" in data and not measured:
        bad(
            "measured",
            "what was measured: text, digest, tokens, loss, pruned, error, influence of each layer, fingerprint",
        )
    return Plan(
        source=text("source"),
        revision=revision,
        family=text("family", None if _is_gguf(data.get("family")) else tuple(f.model_type for f in FAMILIES)),
        reading=reading,
        scores=scores,
        dropped=tuple(dropped),
        format=text("format", tuple(FORMATS)),
        engines=tuple(engines),
        tool_version=text("tool_version"),
        choice=choice,
        constants=constants,
        measured=measured,
        scored=not named,
        scores_of=text("scores_of") if "scores_of" in data else None,
        also=tuple(also),
    )


def check_plan_fits(plan: Plan, model: Model) -> None:
    """Raises PlanError if `plan` was made for a model of another form."""
    scored, present = [s.layer for s in plan.scores], [a.layer for a in model.attention]
    if (plan.family, scored) != (model.family.model_type, present):
        raise PlanError(
            f"the plan was made for a {plan.family} of {len(scored)} attention layers ({plan.source}), but "
            f"{model.checkpoint.source.title} is a {model.family.model_type} of {len(present)}; score it anew"
        )
    for vector in plan.constants.values():
        if len(vector) != FLOAT_BYTES * model.hidden:
            raise PlanError(
                f"the plan has constants of {len(vector) // FLOAT_BYTES} numbers, but the hidden size of "
                f"{model.checkpoint.source.title} is {model.hidden}; measure it anew"
            )


def _entries(value: Any) -> Iterable[tuple[str, Any]]:
    return value.items() if isinstance(value, dict) else ()


def _is_gguf(family: Any) -> bool:
    """Whether it names an architecture as GGUF files do, of which there is no table."""
    return isinstance(family, str) and _GGUF_FAMILY.fullmatch(family) is not None


def _asked(choice: Choice) -> dict[str, Any]:
    """What was given; `protect_last` always is."""
    given = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(choice).items()}
    return {k: v for k, v in given.items() if v is not None}


def _choice(given: Any) -> Choice | None:
    """None if `given` is not in the form that `_asked` gives."""
    if not isinstance(given, dict) or type(given.get("protect_last")) is not int:
        return None
    names = ("drop", "share", "layers", "protect_first", "max_rise")
    drop, share, layers, first, rise = (given.get(k) for k in names)
    fits = (
        all(n is None or type(n) is int for n in (drop, first))
        and (share is None or (type(share) is float and 0 < share < 1))
        and (layers is None or (isinstance(layers, list) and all(type(n) is int for n in layers)))
        and (rise is None or (type(rise) is float and 0 <= rise <= sys.float_info.max))
        and [drop, share, layers, rise].count(None) >= 3
    )
    if not fits:
        return None
    return Choice(drop, share, None if layers is None else tuple(layers), first, given["protect_last"], rise)


def _scores(layers: Any) -> tuple[LayerScore, ...]:
    """Empty if `layers` is not in the form that `Plan.to_json` gives."""
    if not isinstance(layers, list) or len(layers) > MOST_LAYERS:
        return ()
    scores = []
    for entry in layers:
        if not isinstance(entry, Mapping):
            return ()
        layer, score, heads = entry.get("layer"), entry.get("score"), entry.get("heads")
        if type(layer) is not int or not isinstance(heads, list) or not _numbers([score, *heads]):
            return ()
        scores.append(LayerScore(layer, float(score or 0), tuple(float(h) for h in heads)))
    few = sum(len(s.heads) for s in scores) <= MOST_HEADS_IN_ALL
    return tuple(scores) if few and _rising([s.layer for s in scores]) else ()


def _unscored(layers: Any) -> tuple[LayerScore, ...]:
    """Of a plan whose layers were named. Empty if `layers` is not in the form that `Plan.to_json` gives."""
    if not isinstance(layers, list) or len(layers) > MOST_LAYERS:
        return ()
    if not all(isinstance(entry, Mapping) for entry in layers):
        return ()
    numbers = [entry.get("layer") for entry in layers]
    bare = all(entry.get("score") is None and entry.get("heads") == [] for entry in layers)
    return unscored(numbers) if bare and _rising(numbers) else ()


def unscored(layers: Iterable[int]) -> tuple[LayerScore, ...]:
    return tuple(LayerScore(layer, 0.0, ()) for layer in layers)


def _numbers(values: list[Any]) -> bool:
    return all(type(v) in (int, float) and 0 <= v <= LARGEST_SCORE for v in values)


def _rising(layers: list[Any]) -> bool:
    """Layer numbers from 0 on, each higher than the one before; at least one."""
    whole = all(type(n) is int and n >= 0 for n in layers)
    return whole and bool(layers) and all(a < b for a, b in pairwise(layers))
