"""Small GGUF models on disk, written by the `gguf` package."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGMLQuantizationType, GGUFReader, GGUFWriter, quants
from tokenizers.pre_tokenizers import ByteLevel

LAYERS, HIDDEN, HEADS, KV_HEADS, HEAD_DIM, FEED_FORWARD, VOCAB = 4, 256, 4, 2, 64, 256, 48
SPREAD = 0.05
BYTES = [*sorted(ByteLevel.alphabet()), "th"]
"""A vocabulary that cuts any text, with the merge `t h`."""

Tensors = Mapping[str, tuple[np.ndarray, str]]
"""Raw rows and the name of their type."""


def shapes(layers: int = LAYERS, *, bias: bool = False) -> dict[str, tuple[int, ...]]:
    q, kv = HEADS * HEAD_DIM, KV_HEADS * HEAD_DIM
    found: dict[str, tuple[int, ...]] = {"token_embd.weight": (VOCAB, HIDDEN)}
    for n in range(layers):
        p = f"blk.{n}."
        found |= {
            f"{p}attn_norm.weight": (HIDDEN,),
            f"{p}attn_q.weight": (q, HIDDEN),
            f"{p}attn_k.weight": (kv, HIDDEN),
            f"{p}attn_v.weight": (kv, HIDDEN),
            f"{p}attn_output.weight": (HIDDEN, q),
            f"{p}ffn_norm.weight": (HIDDEN,),
            f"{p}ffn_gate.weight": (FEED_FORWARD, HIDDEN),
            f"{p}ffn_up.weight": (FEED_FORWARD, HIDDEN),
            f"{p}ffn_down.weight": (HIDDEN, FEED_FORWARD),
        }
        if bias:
            found |= {f"{p}attn_q.bias": (q,), f"{p}attn_k.bias": (kv,), f"{p}attn_v.bias": (kv,)}
    return found | {"output_norm.weight": (HIDDEN,), "output.weight": (VOCAB, HIDDEN)}


def tensors(
    wanted: Mapping[str, tuple[int, ...]], dtype: str = "F32", seed: int = 0, *, gain: Mapping[int, float] = {}
) -> dict[str, tuple[np.ndarray, str]]:
    """Random matrices of `dtype`, random vectors of F32; `gain` multiplies the queries of a layer."""
    rng = np.random.default_rng(seed)
    made = {}
    for name, shape in wanted.items():
        values = rng.normal(0, SPREAD, shape).astype(np.float32)
        if name.endswith("norm.weight"):
            values += 1
        for layer, factor in gain.items():
            if name == f"blk.{layer}.attn_q.weight":
                values *= np.float32(factor)
        made[name] = (stored(values, dtype), dtype) if len(shape) > 1 else (values, "F32")
    return made


def stored(values: np.ndarray, dtype: str) -> np.ndarray:
    if dtype in ("F32", "F64"):
        return values.astype({"F32": np.float32, "F64": np.float64}[dtype])
    return quants.quantize(values, GGMLQuantizationType[dtype])


def numbers(tensor: tuple[np.ndarray, str]) -> np.ndarray:
    raw, dtype = tensor
    if dtype == "F64":
        return raw
    return quants.dequantize(raw, GGMLQuantizationType[dtype])


def write_gguf(
    path: Path,
    content: Tensors,
    architecture: str = "llama",
    *,
    split: int | None = None,
    alignment: int | None = None,
    tokens: Sequence[str] = (),
    **metadata: Any,
) -> Path:
    """`metadata` adds to the architecture's own keys, or replaces them; None leaves one out. Of `split`, so many
    tensors go into each file, and `path` is the common beginning of their names. Its vocabulary cuts no text
    unless `tokens` are `BYTES`. Gives the (first) file.
    """
    most = split or len(content)
    writer = GGUFWriter(path, architecture, split_max_tensors=split or 0)
    if alignment:
        writer.add_custom_alignment(alignment)
    values = {
        "block_count": 1 + max(int(name.split(".")[1]) for name in content if name.startswith("blk.")),
        "embedding_length": HIDDEN,
        "feed_forward_length": FEED_FORWARD,
        "attention.head_count": HEADS,
        "attention.head_count_kv": KV_HEADS,
        "context_length": 512,
        **{key.replace("__", "."): value for key, value in metadata.items()},
    }
    for key, value in values.items():
        if isinstance(value, list):
            writer.add_array(f"{architecture}.{key}", value)
        elif value is not None:
            writer.add_uint32(f"{architecture}.{key}", value)
    writer.add_float32(f"{architecture}.attention.layer_norm_rms_epsilon", 1e-5)
    writer.add_string("general.name", "a naïve ☃ model")
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens or [f"t{n}" for n in range(VOCAB)])
    writer.add_token_merges(["t h"] if tokens else [f"t {n}" for n in range(VOCAB)])
    writer.add_token_types([1] * (len(tokens) or VOCAB))
    writer.add_chat_template("{% for m in messages %}{{ m }}{% endfor %}")
    for name, (raw, dtype) in content.items():
        plain = dtype in ("F32", "F16", "F64") and raw.dtype != np.uint8
        writer.add_tensor(name, raw, raw_dtype=None if plain else GGMLQuantizationType[dtype])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    count = -(-len(content) // most)
    return path.with_name(f"{path.stem}-00001-of-{count:05d}.gguf") if split else path


def read(path: Path) -> tuple[dict[str, tuple[int, bytes]], dict[str, tuple[tuple[int, ...], str, bytes]]]:
    """Metadata as (kind, bytes) and tensors as (shape, type, bytes), by the package's reader."""
    reader = GGUFReader(path)
    fields = {
        name: (int(f.types[0]), b"".join(part.tobytes() for part in f.parts[2:]))
        for name, f in reader.fields.items()
        if not name.startswith("GGUF.")
    }
    held = {t.name: (tuple(map(int, t.shape[::-1])), t.tensor_type.name, t.data.tobytes()) for t in reader.tensors}
    return fields, held
