"""Hostile model.safetensors.index.json: names that lead out, tensors in wrong shards, shards twice or missing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from tests.fuzz.hostile_json import Pairs, dump, edited, names, values


def files(index: Path) -> st.SearchStrategy[bytes]:
    original: dict[str, Any] = json.loads(index.read_bytes())
    tensors, shards = list(original["weight_map"]), sorted(set(original["weight_map"].values()))

    @st.composite
    def spoiled(draw: st.DrawFn) -> bytes:
        weight_map: list[tuple[Any, Any]] = list(original["weight_map"].items())
        for _ in range(draw(st.integers(1, 3))):
            place = draw(st.integers(0, len(weight_map) - 1))
            name, shard = weight_map[place]
            match draw(st.sampled_from(["file", "elsewhere", "drop", "double", "invent", "rename", "case"])):
                case "file":
                    weight_map[place] = name, draw(st.one_of(names, values))
                case "elsewhere":
                    weight_map[place] = name, draw(st.sampled_from(shards))
                case "drop":
                    del weight_map[place]
                case "double":
                    weight_map.append((name, draw(st.one_of(st.just(shard), st.sampled_from(shards), names))))
                case "invent":
                    weight_map.append((draw(names), draw(st.sampled_from([*shards, "model-9.safetensors"]))))
                case "rename":
                    weight_map[place] = draw(st.one_of(names, st.sampled_from(tensors))), shard
                case "case":
                    weight_map[place] = name, str(shard).upper() if isinstance(shard, str) else shard
            if not weight_map:
                break
        metadata = draw(st.one_of(st.just(original.get("metadata", {})), values))
        return dump({"metadata": metadata, "weight_map": Pairs(tuple(weight_map))})

    return st.one_of(spoiled(), edited(original), values.map(dump))
