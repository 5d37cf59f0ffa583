"""Plans and records survive JSON, whatever is in them."""

from __future__ import annotations

import json
import math
import struct
from base64 import b64encode
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatenorm_stream.errors import GateNormError, PlanError
from gatenorm_stream.formats.engines import ENGINES
from gatenorm_stream.names import is_safe
from gatenorm_stream.planning.measured import Measured
from gatenorm_stream.planning.plan import Plan, plan_from_json
from gatenorm_stream.scoring.readings import READINGS
from gatenorm_stream.scoring.scores import LayerScore
from gatenorm_stream.scoring.selection import Choice
from gatenorm_stream.writing.record import FileDigest, parse_record, render_record

norms = st.floats(0, 1e300)
finite = st.floats(allow_nan=False, allow_infinity=False, width=32)


some = st.integers(0, 9)
choices = st.builds(
    lambda ways, first, last: Choice(**ways, protect_first=first, protect_last=last),
    st.one_of(
        st.just({}),
        st.fixed_dictionaries({"drop": some}),
        st.fixed_dictionaries({"share": st.floats(0, 1, exclude_min=True, exclude_max=True)}),
        st.fixed_dictionaries({"layers": st.lists(some, min_size=1).map(tuple)}),
        st.fixed_dictionaries({"max_rise": st.floats(0, 1e300)}),
    ),
    st.none() | some,
    some,
)


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    count = draw(st.integers(2, 8))
    heads = st.lists(norms, max_size=4).map(tuple)
    dropped = tuple(sorted(draw(st.sets(st.integers(0, count - 1), min_size=1, max_size=count - 1))))
    return Plan(
        source=draw(st.text()),
        revision=draw(st.none() | st.text()),
        family=draw(st.sampled_from(["llama", "mistral"])),
        reading=draw(st.none() | st.sampled_from(READINGS)),
        scores=tuple(LayerScore(n, draw(norms), draw(heads)) for n in range(count)),
        dropped=dropped,
        format=draw(st.sampled_from(["no-op", "zeroed"])),
        engines=tuple(draw(st.lists(st.sampled_from(ENGINES), unique=True))),
        tool_version=draw(st.text()),
        choice=draw(st.none() | choices),
        constants=draw(st.just({}) | constants(dropped)),
        measured=draw(st.none() | measured(count)),
    )


def measured(layers: int) -> st.SearchStrategy[Measured]:
    losses = st.floats(0, 1e40)
    influence = st.lists(losses, min_size=layers, max_size=layers).map(tuple)
    return st.builds(Measured, st.text(), st.text(), st.integers(1), losses, losses, losses, influence)


def constants(layers: tuple[int, ...]) -> st.SearchStrategy[dict[int, bytes]]:
    """A vector of finite float32 for each layer, all of one length."""

    def of(width: int) -> st.SearchStrategy[dict[int, bytes]]:
        vector = st.lists(finite, min_size=width, max_size=width).map(lambda v: struct.pack(f"<{width}f", *v))
        return st.fixed_dictionaries(dict.fromkeys(layers, vector))

    return st.integers(1, 4).flatmap(of)


digests = st.builds(FileDigest, st.integers(0, 2**50), st.text("0123456789abcdef", min_size=64, max_size=64))
safe_names = st.text(st.characters(codec="utf-8")).filter(is_safe)


@given(plans())
def test_a_plan_survives_json(plan: Plan) -> None:
    assert plan_from_json(json.loads(json.dumps(plan.to_json())), "here") == plan


@given(plans(), st.dictionaries(safe_names, digests, max_size=4))
def test_a_record_survives_its_text(plan: Plan, files: dict[str, FileDigest]) -> None:
    text = render_record(plan, files)
    assert parse_record(text, "here") == (plan, files)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(plans(), st.dictionaries(st.sampled_from([*Plan.__dataclass_fields__, "layers", "schema"]), json_values))
def test_an_edited_plan_is_a_plan_or_a_plan_error(plan: Plan, edits: dict[str, Any]) -> None:
    try:
        read = plan_from_json(plan.to_json() | edits, "here")
    except PlanError as error:
        assert "\n" not in str(error)
        return
    assert plan_from_json(read.to_json(), "here") == read


def text(*numbers: float) -> str:
    return b64encode(struct.pack(f"<{len(numbers)}f", *numbers)).decode()


PLAN = Plan("source", None, "llama", "per-head", tuple(LayerScore(n, 1.0, ()) for n in range(4)), (1, 3), "no-op")
SOUND = {"1": text(1.0, -0.5), "3": text(0.0, 3e38)}


@pytest.mark.parametrize(
    "constants",
    [
        None,
        {},
        [],
        list(SOUND.values()),
        {"1": SOUND["1"]},
        {**SOUND, "2": SOUND["1"]},
        {"01": SOUND["1"], "3": SOUND["3"]},
        {"+1": SOUND["1"], "3": SOUND["3"]},
        {"１": SOUND["1"], "3": SOUND["3"]},
        {**SOUND, "3": text(1.0)},
        {**SOUND, "3": text(1.0, math.nan)},
        {**SOUND, "3": text(-math.inf, 1.0)},
        {**SOUND, "3": [0.0, 1.0]},
        {**SOUND, "3": None},
        {**SOUND, "3": SOUND["3"][:-1]},
        {**SOUND, "3": SOUND["3"] + "\n"},
        {**SOUND, "3": SOUND["3"].replace("=", "") + "\xe9"},
        {**SOUND, "3": SOUND["3"][:-2] + "x="},
        {"1": "", "3": ""},
        {"1": b64encode(bytes(7)).decode(), "3": b64encode(bytes(7)).decode()},
    ],
    ids=repr,
)
def test_constants_of_another_form(constants: Any) -> None:
    read = plan_from_json(PLAN.to_json() | {"constants": SOUND}, "here")
    assert read.constants == {1: struct.pack("<2f", 1.0, -0.5), 3: struct.pack("<2f", 0.0, 3e38)}
    with pytest.raises(PlanError, match="constants must be a vector of finite float32") as caught:
        plan_from_json(PLAN.to_json() | {"constants": constants}, "here")
    assert "\n" not in str(caught.value)


@given(st.data())
def test_hostile_constants_are_what_was_written_or_a_plan_error(data: st.DataObject) -> None:
    """One character of one vector, or one key, is another."""
    written = PLAN.to_json() | {"constants": dict(SOUND)}
    key = data.draw(st.sampled_from(sorted(SOUND)))
    vector = written["constants"].pop(key)
    if data.draw(st.booleans()):
        key = data.draw(st.text("0123456789 +-_.\u0661", min_size=1, max_size=3))
    else:
        at = data.draw(st.integers(0, len(vector) - 1))
        vector = vector[:at] + data.draw(st.characters(codec="utf-8")) + vector[at + 1 :]
    written["constants"][key] = vector
    try:
        read = plan_from_json(written, "here")
    except PlanError:
        return
    assert read.to_json() == written


def test_a_plan_without_constants_says_nothing_of_them() -> None:
    assert "constants" not in PLAN.to_json()


MEASURED = Measured("a text", "d1", 16, 2.5, 3.0, 0.1, (0.1, 0.2, 0.3, 0.4), "f1")


@pytest.mark.parametrize(
    "change",
    [
        {"loss": 3},
        {"loss": math.nan},
        {"error": math.inf},
        {"pruned": "3.0"},
        {"tokens": True},
        {"tokens": 0},
        {"loss": -0.5},
        {"pruned": 1e300},
        {"error": -0.1},
        {"tokens": 16.0},
        {"influence": [0.1, 0.2, 0.3]},
        {"influence": [0.1, 0.2, 0.3, None]},
        {"text": None},
        {"more": 1},
    ],
    ids=repr,
)
def test_what_was_measured_in_another_form(change: dict[str, Any]) -> None:
    written = replace(PLAN, measured=MEASURED).to_json()
    assert plan_from_json(written, "here").measured == MEASURED
    with pytest.raises(PlanError, match="measured must be what was measured") as caught:
        plan_from_json(written | {"measured": MEASURED.to_json() | change}, "here")
    assert "\n" not in str(caught.value)


@given(json_values)
def test_anything_else_is_an_error_too(value: Any) -> None:
    with pytest.raises(GateNormError):
        plan_from_json(value, "here")
    with pytest.raises(GateNormError):
        parse_record(json.dumps(value), "here")
