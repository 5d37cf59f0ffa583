"""Hostile gatenorm.json given to --plan: a saved plan that was edited by hand, or by an enemy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from tests.fuzz.hostile_json import dump, edited, integers, names, numbers, values

layer_lists = st.lists(st.one_of(st.integers(0, 4), integers), max_size=5)
entries = st.fixed_dictionaries(
    {"layer": st.one_of(st.integers(0, 5), values), "score": st.one_of(numbers, values)},
    optional={"heads": st.one_of(st.lists(numbers, max_size=3), values)},
)
choices = st.fixed_dictionaries(
    {"protect_last": st.one_of(st.integers(0, 3), values)},
    optional={
        "drop": st.one_of(st.integers(-1, 3), values),
        "share": st.one_of(st.floats(0, 1), values),
        "layers": st.one_of(layer_lists, values),
        "protect_first": st.one_of(st.integers(-1, 3), values),
        "max_rise": st.one_of(st.floats(-1, 3), values),
    },
)
vectors = st.sampled_from(["AACAPwAAAEA=", "AACAPw==", "AACAfw==", "AACAP", "QQ=="])
measured = st.fixed_dictionaries(
    {
        "text": names,
        "digest": names,
        "tokens": st.one_of(st.integers(0, 2048), values),
        **dict.fromkeys(("loss", "pruned", "error"), st.one_of(st.floats(), values)),
        "influence": st.one_of(st.lists(st.floats(), max_size=5), values),
    }
)
FIELDS: dict[str, Any] = {
    "schema": st.one_of(st.integers(0, 3), values),
    "source": st.one_of(names, values),
    "revision": st.one_of(st.none(), names),
    "family": st.one_of(st.sampled_from(["llama", "mistral", "bert"]), values),
    "reading": st.one_of(st.sampled_from(["per-head", "joint", "stored"]), values),
    "layers": st.one_of(st.lists(entries, max_size=5), values),
    "dropped": st.one_of(layer_lists, values),
    "format": st.one_of(st.sampled_from(["no-op", "zeroed", "transformers", "auto", "gguf"]), values),
    "engines": st.one_of(st.lists(st.sampled_from(["vllm", "llama.cpp", "x"]), max_size=3), values),
    "choice": st.one_of(choices, values),
    "constants": st.one_of(st.dictionaries(st.sampled_from(["0", "1", "2", "01", "x"]), vectors), values),
    "measured": st.one_of(measured, values),
    "by": st.one_of(st.just("influence"), values),
    "tool_version": st.one_of(names, values),
    "files": values,
    "blake3": values,
}


def files(plan: Path) -> st.SearchStrategy[bytes]:
    original: dict[str, Any] = json.loads(plan.read_bytes())
    return st.one_of(edited(original, FIELDS), edited(original, FIELDS), values.map(dump))
