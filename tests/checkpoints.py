"""Small checkpoints on disk, written by hand, independently of the package under test."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

LAYERS, HIDDEN, HEADS, KV_HEADS, HEAD_DIM, INTERMEDIATE, VOCAB = 4, 32, 4, 2, 8, 256, 40


def llama_config(**changes: Any) -> dict[str, Any]:
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": HIDDEN,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "intermediate_size": INTERMEDIATE,
        "vocab_size": VOCAB,
        "max_position_embeddings": 128,
        "rms_norm_eps": 1e-5,
        "hidden_act": "silu",
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
        **changes,
    }
    return {key: value for key, value in config.items() if value is not ...}


def llama_shapes(layers: int = LAYERS, *, bias: bool = False) -> dict[str, tuple[int, ...]]:
    return shapes_of(llama_config(num_hidden_layers=layers), bias=bias)


def shapes_of(config: Mapping[str, Any], *, bias: bool = False) -> dict[str, tuple[int, ...]]:
    """The tensors of a Llama with this config."""
    hidden, inner, heads = (config[n] for n in ("hidden_size", "intermediate_size", "num_attention_heads"))
    dim = config.get("head_dim", hidden // heads)
    q, kv = heads * dim, config["num_key_value_heads"] * dim
    embedding = (config["vocab_size"], hidden)
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": embedding}
    for n in range(config["num_hidden_layers"]):
        p = f"model.layers.{n}."
        for name, out, into in [
            ("q_proj", q, hidden),
            ("k_proj", kv, hidden),
            ("v_proj", kv, hidden),
            ("o_proj", hidden, q),
        ]:
            shapes[f"{p}self_attn.{name}.weight"] = (out, into)
            if bias:
                shapes[f"{p}self_attn.{name}.bias"] = (out,)
        shapes |= {
            f"{p}mlp.gate_proj.weight": (inner, hidden),
            f"{p}mlp.up_proj.weight": (inner, hidden),
            f"{p}mlp.down_proj.weight": (hidden, inner),
            f"{p}input_layernorm.weight": (hidden,),
            f"{p}post_attention_layernorm.weight": (hidden,),
        }
    shapes["model.norm.weight"] = (hidden,)
    return shapes if config["tie_word_embeddings"] else shapes | {"lm_head.weight": embedding}


def random_tensors(shapes: Mapping[str, tuple[int, ...]], seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {name: rng.standard_normal(shape) for name, shape in shapes.items()}


def encode(values: np.ndarray, dtype: str) -> bytes:
    """float64 values in a safetensors dtype; BF16 by truncation."""
    if dtype == "BF16":
        return (np.asarray(values, "<f4").view("<u4") >> 16).astype("<u2").tobytes()
    return np.asarray(values).astype({"F64": "<f8", "F32": "<f4", "F16": "<f2"}[dtype]).tobytes()


def decode(data: bytes, dtype: str, shape: Sequence[int]) -> np.ndarray:
    """What `encode` kept of the values, as float64."""
    if dtype == "BF16":
        return (np.frombuffer(data, "<u2").astype("<u4") << 16).view("<f4").astype(np.float64).reshape(shape)
    stored = np.frombuffer(data, {"F64": "<f8", "F32": "<f4", "F16": "<f2"}[dtype])
    return stored.astype(np.float64).reshape(shape)


def write_shard(
    path: Path, tensors: Mapping[str, tuple[str, Sequence[int], bytes]], metadata: Mapping[str, str] | None = None
) -> None:
    """A safetensors file with its tensors (dtype, shape, bytes) in the order given."""
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    position = 0
    for name, (dtype, shape, data) in tensors.items():
        header[name] = {
            "dtype": dtype,
            "shape": list(shape),
            "data_offsets": [position, position + len(data)],
        }
        position += len(data)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(d for _, _, d in tensors.values()))


def write_checkpoint(
    root: Path,
    tensors: Mapping[str, np.ndarray],
    config: Mapping[str, Any],
    *,
    dtype: str = "BF16",
    shards: int = 2,
    dtypes: Mapping[str, str] | None = None,
    seed: int | None = None,
    tokenizer: bool = True,
) -> Path:
    """With `seed`, tensors are dealt to shards and ordered at random; `dtypes` overrides single tensors."""
    root.mkdir(parents=True)
    names = list(tensors)
    if seed is not None:
        np.random.default_rng(seed).shuffle(names)
    stored = {n: (d := (dtypes or {}).get(n, dtype), tensors[n].shape, encode(tensors[n], d)) for n in names}
    if shards == 1:
        write_shard(root / "model.safetensors", stored, {"format": "pt"})
    else:
        weight_map: dict[str, str] = {}
        for s in range(shards):
            file = f"model-{s + 1:05d}-of-{shards:05d}.safetensors"
            part = {n: stored[n] for n in names[s::shards]}
            write_shard(root / file, part, {"format": "pt"})
            weight_map |= dict.fromkeys(part, file)
        total = sum(len(data) for _, _, data in stored.values())
        index = {"metadata": {"total_size": total}, "weight_map": weight_map}
        (root / "model.safetensors.index.json").write_text(json.dumps(index))
    (root / "config.json").write_text(json.dumps(config))
    if tokenizer:
        (root / "tokenizer.json").write_text(
            json.dumps({"model": {"type": "BPE", "byte_fallback": True}, "decoder": {"type": "Sequence"}})
        )
        (root / "generation_config.json").write_text('{"eos_token_id": 2}')
    return root


def write_latent(root: Path, *, tokenizer: bool = True, **changes: Any) -> Path:
    """The attention of a DeepSeek V2."""
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (40, HIDDEN)}
    for n in range(LAYERS):
        p = f"model.layers.{n}.self_attn."
        shapes |= {f"{p}q_proj.weight": (HEADS * 6, HIDDEN), f"{p}kv_a_proj_with_mqa.weight": (10, HIDDEN)}
        shapes |= {f"{p}kv_b_proj.weight": (HEADS * 9, 8), f"{p}o_proj.weight": (HIDDEN, HEADS * 5)}
    sizes = {"qk_nope_head_dim": 4, "qk_rope_head_dim": 2, "v_head_dim": 5, "kv_lora_rank": 8, "q_lora_rank": None}
    config = llama_config(model_type="deepseek_v2", **{**sizes, **changes})
    return write_checkpoint(root, random_tensors(shapes), config, tokenizer=tokenizer)


def read_tensors(root: Path) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    """(dtype, shape, bytes) of every tensor of a directory, by the safetensors package."""
    from safetensors import deserialize

    return {
        name: (t["dtype"], tuple(t["shape"]), bytes(t["data"]))
        for file in sorted(root.glob("*.safetensors"))
        for name, t in deserialize(file.read_bytes())
    }
