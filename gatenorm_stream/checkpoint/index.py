"""Where an index contradicts its shards: what transformers tolerates is said, the rest is an error."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from gatenorm_stream.checkpoint.tensors import Tensor
from gatenorm_stream.errors import CheckpointError
from gatenorm_stream.names import INDEX
from gatenorm_stream.printable import listed

_HEADS = re.compile(r"(.*\.)?(lm_head|embed_out|output|score)\.weight")
_BUFFERS = re.compile(
    r"(.*\.)?(rotary_emb\.\w+|inv_freq|position_ids|masked_bias|attention\.bias|attn\.bias|\w*_cached|num_batches_tracked)"
)
"""Computed anew by every engine; old checkpoints hold them."""
SHOWN = 4


def index_remarks(
    weight_map: Mapping[str, str], tensors: Mapping[str, Tensor], config: Mapping[str, Any]
) -> tuple[str, ...]:
    """What the shards hold is what counts.

    Raises CheckpointError if the index lists a tensor that no shard holds, unless it is a head that may be tied to
    the embedding, or a buffer.
    """
    absent = [name for name in weight_map if name not in tensors]
    for name in absent:
        if not (_BUFFERS.fullmatch(name) or (_HEADS.fullmatch(name) and _may_be_tied(config))):
            raise CheckpointError(
                f"{INDEX} puts {name} in {weight_map[name]}, which does not hold it; "
                "the checkpoint is damaged, download it again"
            )
    forgotten = [name for name in tensors if name not in weight_map]
    moved = [name for name, t in tensors.items() if name in weight_map and t.shard.name != weight_map[name]]
    return (
        *_line(absent, "lists", "which no shard holds: left out"),
        *_line(forgotten, "forgets", "which a shard holds: taken"),
        *_line(moved, "puts into another shard", "taken from where it is"),
    )


def _line(names: list[str], does: str, done: str) -> Iterator[str]:
    if names:
        yield f"{INDEX} {does} {listed(names, SHOWN)}, {done}"


def _may_be_tied(config: Mapping[str, Any]) -> bool:
    text = config.get("text_config")
    said = [part.get("tie_word_embeddings") for part in (config, text) if isinstance(part, Mapping)]
    return True in said or False not in said
