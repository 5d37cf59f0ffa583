"""What an output itself says against its plan. Anyone can write files of any form and record their digests."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from gatenorm_stream.checkpoint.json_text import MAX_JSON_BYTES, parse_json
from gatenorm_stream.checkpoint.safetensors import read_shard_header
from gatenorm_stream.checkpoint.tensors import Checkpoint
from gatenorm_stream.errors import GateNormError
from gatenorm_stream.families.gguf import ARCHITECTURE, LAYERS
from gatenorm_stream.families.model import layers_prefix
from gatenorm_stream.families.pruned import CONSTANT
from gatenorm_stream.families.table import FAMILIES
from gatenorm_stream.formats.deci import DECI
from gatenorm_stream.names import CONFIG, INDEX
from gatenorm_stream.sources.local_file import LocalFile
from gatenorm_stream.verifying.output import Output


def in_directory(output: Output) -> Iterator[str]:
    """Compares tensors, index and config with the plan, by way of the safetensors package.

    That reads only headers that our own reader, which is bounded, has taken.
    """
    try:
        yield from _in_directory(output)
    except _UnreadableError as error:
        yield str(error)


def in_gguf(output: Output, held: Checkpoint) -> Iterator[str]:
    """Compares tensors and heads with the plan.

    The `gguf` package's own reader would be another pair of eyes, but takes 500 MB for a large vocabulary.
    """
    metadata = held.config
    said: list[Any] = [
        metadata[key].read() if key in metadata else None for key in (ARCHITECTURE, f"{DECI}.attention.head_count")
    ]
    architecture, heads = said
    removed = output.format.removes
    if removed and (architecture != DECI or not isinstance(heads, list)):
        yield f"its architecture is {architecture}, not {DECI} with a number of heads for each layer"
        return
    yield from _attention(output, held.tensors, re.compile(rf"{LAYERS}\.([0-9]+)\.attn_"))
    for layer in output.plan.dropped if removed else ():
        if heads[layer : layer + 1] != [0]:
            yield f"layer {layer} has heads, against the plan"


def _in_directory(output: Output) -> Iterator[str]:
    from safetensors import safe_open

    plan, held = output.plan, dict[str, str]()
    for path in sorted(output.path.glob("*.safetensors")):
        with _reading(path.name), closing(LocalFile(path)) as file:
            read_shard_header(file)
        with _reading(path.name), safe_open(path, framework="numpy") as shard:
            held |= dict.fromkeys(shard.keys(), path.name)
    if output.file(INDEX).is_file():
        with _reading(INDEX):
            yield from _misplaced(held, _json(output.file(INDEX))["weight_map"])
    with _reading(CONFIG):
        for pruned in _named_as_pruned(_json(output.file(CONFIG))) if output.format.removes else ():
            if pruned != list(plan.dropped):
                yield f"{CONFIG} says layers {pruned} have no attention, the plan {list(plan.dropped)}"
    family = next(f for f in FAMILIES if f.model_type == plan.family)
    prefix = re.escape(layers_prefix(held, family))
    attention = rf"{prefix}([0-9]+)\.{re.escape(family.attention)}\.(?!{CONSTANT}$)"
    yield from _attention(output, held, re.compile(attention))


def _attention(output: Output, held: Iterable[str], attention: re.Pattern[str]) -> Iterator[str]:
    """`attention` is how names of attention tensors begin; its group is the layer."""
    there = {match[1] for name in held if (match := attention.match(name))}
    gone = set(output.plan.dropped if output.format.removes else ())
    for layer in (s.layer for s in output.plan.scores):
        has = str(layer) in there
        if has == (layer in gone):
            yield f"layer {layer} has {'' if has else 'no '}attention tensors, against the plan"


def _misplaced(held: Mapping[str, str], listed: Mapping[str, Any]) -> Iterator[str]:
    for name in sorted(held.keys() | listed.keys()):
        if held.get(name) != listed.get(name):
            yield f"{INDEX} puts {name} in {listed.get(name, 'no file')}, it stands in {held.get(name, 'no file')}"


def _named_as_pruned(config: Any) -> Iterator[list[int]]:
    yield config["gatenorm"]["pruned_layers"]
    if blocks := config.get("block_configs"):
        yield [n for n, b in enumerate(blocks) if b["attention"]["no_op"]]


def _json(path: Path) -> Any:
    with open(path, "rb") as file:
        return parse_json(file.read(MAX_JSON_BYTES + 1))


class _UnreadableError(Exception):
    pass


@contextmanager
def _reading(name: str) -> Iterator[None]:
    from safetensors import SafetensorError

    try:
        yield
    except (GateNormError, SafetensorError, OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise _UnreadableError(f"{name} is not what the plan makes: {type(error).__name__}: {error}") from error
