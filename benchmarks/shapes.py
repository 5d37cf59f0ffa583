"""Checkpoints in the shape of known models: sparse files whose q and k hold random bfloat16, all else holes.

A hole reads as zeros and takes no disk space, and what does not depend on the other weights (what is read, how much
memory that takes, how long) is measured on it as well as on the real model.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

SHARD_BYTES = 5_000_000_000
BLOCK_BYTES = 16 << 20


@dataclass(frozen=True)
class Shape:
    """`source` names the published config that these sizes are taken from."""

    name: str
    source: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    intermediate: int
    vocabulary: int

    @property
    def head_dim(self) -> int:
        return self.hidden // self.heads

    def tensors(self) -> dict[str, tuple[int, ...]]:
        q, kv = self.hidden, self.kv_heads * self.head_dim
        shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (self.vocabulary, self.hidden)}
        for n in range(self.layers):
            p = f"model.layers.{n}."
            shapes |= {
                f"{p}self_attn.q_proj.weight": (q, self.hidden),
                f"{p}self_attn.k_proj.weight": (kv, self.hidden),
                f"{p}self_attn.v_proj.weight": (kv, self.hidden),
                f"{p}self_attn.o_proj.weight": (self.hidden, q),
                f"{p}mlp.gate_proj.weight": (self.intermediate, self.hidden),
                f"{p}mlp.up_proj.weight": (self.intermediate, self.hidden),
                f"{p}mlp.down_proj.weight": (self.hidden, self.intermediate),
                f"{p}input_layernorm.weight": (self.hidden,),
                f"{p}post_attention_layernorm.weight": (self.hidden,),
            }
        return shapes | {
            "model.norm.weight": (self.hidden,),
            "lm_head.weight": (self.vocabulary, self.hidden),
        }

    @property
    def qk_bytes(self) -> int:
        return 2 * self.layers * self.hidden * (self.heads + self.kv_heads) * self.head_dim

    def config(self) -> dict[str, object]:
        return {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "hidden_size": self.hidden,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "intermediate_size": self.intermediate,
            "vocab_size": self.vocabulary,
            "max_position_embeddings": 4096,
            "rms_norm_eps": 1e-5,
            "hidden_act": "silu",
            "rope_theta": 10000.0,
            "tie_word_embeddings": False,
        }


SHAPES = {
    shape.name: shape
    for shape in (
        Shape("1B", "TinyLlama 1.1B", 22, 2048, 32, 4, 5632, 32000),
        Shape("8B", "Llama 3.1 8B", 32, 4096, 32, 8, 14336, 128256),
        Shape("13B", "Llama 2 13B", 40, 5120, 40, 40, 13824, 32000),
        Shape("70B", "Llama 2 70B", 80, 8192, 64, 8, 28672, 32000),
        Shape("405B", "Llama 3.1 405B", 126, 16384, 128, 8, 53248, 128256),
    )
}


def write_sparse(
    shape: Shape,
    root: Path,
    *,
    dtype: str = "BF16",
    rows: float = 1.0,
    dense: bool = False,
    shard_bytes: int = SHARD_BYTES,
) -> Path:
    """Writes the checkpoint in shards of about `shard_bytes`.

    Of each head of q and k, the share `rows` holds numbers, in BF16 or F16; about that share of `shape.qk_bytes` is
    taken on the disk. `dense` leaves no holes anywhere.
    """
    root.mkdir(parents=True)
    rng = np.random.default_rng(0)
    values = rng.standard_normal(BLOCK_BYTES // 2, dtype=np.float32) * np.float32(0.02)
    narrow = (values.view(np.uint32) >> 16).astype("<u2") if dtype == "BF16" else values.astype("<f2")
    block = narrow.tobytes()
    shards: list[dict[str, tuple[int, ...]]] = [{}]
    size = 0
    for name, dims in shape.tensors().items():
        if size > shard_bytes:
            shards.append({})
            size = 0
        shards[-1][name] = dims
        size += 2 * int(np.prod(dims))
    weight_map: dict[str, str] = {}
    for number, tensors in enumerate(shards, start=1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        _write_shard(root / file, tensors, block, dtype, 1 if dense else rows, shape.head_dim, dense)
        weight_map |= dict.fromkeys(tensors, file)
    index = {"metadata": {}, "weight_map": weight_map}
    (root / "model.safetensors.index.json").write_text(json.dumps(index))
    (root / "config.json").write_text(json.dumps(shape.config()))
    return root


def _write_shard(
    path: Path,
    tensors: dict[str, tuple[int, ...]],
    block: bytes,
    dtype: str,
    rows: float,
    head_dim: int,
    dense: bool,
) -> None:
    header: dict[str, dict[str, Any]] = {}
    position = 0
    for name, dims in tensors.items():
        stop = position + 2 * int(np.prod(dims))
        header[name] = {"dtype": dtype, "shape": list(dims), "data_offsets": [position, stop]}
        position = stop
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        start = file.tell()
        file.truncate(start + position)
        for name, entry in header.items():
            if dense or ".q_proj." in name or ".k_proj." in name:
                begin, stop = entry["data_offsets"]
                step = len(block)
                if rows < 1:
                    step = head_dim * entry["shape"][1] * 2
                for offset in range(begin, stop, step):
                    file.seek(start + offset)
                    file.write(block[: int(rows * min(step, stop - offset))])
