"""Why a directory or repository is no safetensors checkpoint, in words, told by the names in it."""

from __future__ import annotations

import re
from itertools import islice
from pathlib import PurePosixPath

from gatenorm_stream.names import ADAPTER, CONFIG, INDEX, SINGLE

FOREIGN_WEIGHTS = (".bin", ".pth", ".pt", ".ckpt", ".gguf", ".h5", ".msgpack", ".onnx")
ADAPTER_WEIGHTS = re.compile(r"adapter_model.*\.(safetensors|bin)|.*lora.*\.safetensors", re.IGNORECASE)
PART = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.safetensors")
OWN_FORMS = {
    "qmodel.pt": "a model of HQQ's own form, which only hqq reads; prune the original model, then quantise that",
    "consolidated.safetensors": f"weights in Mistral's own form; give the form for transformers, with {INDEX}",
    "model_index.json": "a pipeline of diffusers, not a language model; give the directory of a language model",
}
SHOWN = 3


def no_model(title: str, names: tuple[str, ...]) -> str | None:
    """None if config and weights are there."""
    weights = {SINGLE, INDEX} & set(names)
    if CONFIG in names and weights:
        return None
    adapted = not weights and any(ADAPTER_WEIGHTS.fullmatch(PurePosixPath(n).name) for n in names)
    if adapted or ADAPTER in names:
        return (
            f"{title} is an adapter, not a model; merge it into its base model first (peft: merge_and_unload, then "
            "save_pretrained)"
        )
    if own := next((n for n in names if n in OWN_FORMS), None):
        return f"{title} has {own}: {OWN_FORMS[own]}"
    if CONFIG not in names:
        beside = "give the directory or repository that holds it beside the *.safetensors files"
        return f"{title} has no {CONFIG}; {beside}"
    return _no_weights(title, names)


def _no_weights(title: str, names: tuple[str, ...]) -> str:
    loose = [n for n in names if n.endswith(".safetensors")]
    if parts := [match for n in loose if (match := PART.fullmatch(n))]:
        return _no_index(title, parts)
    if loose:
        return (
            f"{title} has {loose[0]} but neither {SINGLE} nor {INDEX}; restore the index file, or name a single "
            f"file {SINGLE}"
        )
    if foreign := [n for n in names if n.endswith(FOREIGN_WEIGHTS)]:
        return (
            f"{title} has no safetensors weights, only {foreign[0]}; save the model as safetensors "
            "first (transformers: from_pretrained(...).save_pretrained(...))"
        )
    return f"{title} has no weights: neither {SINGLE} nor {INDEX} is there; download them"


def _no_index(title: str, parts: list[re.Match[str]]) -> str:
    stem, count = parts[0][1], int(parts[0][3])
    there = {int(match[2]) for match in parts if (match[1], int(match[3])) == (stem, count)}
    absent = (number for number in range(1, count + 1) if number not in there)
    missing = [f"{stem}-{number:05d}-of-{count:05d}.safetensors" for number in islice(absent, SHOWN)]
    if missing:
        return f"{title} has {len(there)} of {count} shards and no {INDEX}; download {', '.join(missing)} and that"
    return f"{title} has all shards ({parts[0][0]} ...) but no {INDEX}, which says what is where; restore the index"
