"""Time and peak memory of the command on a GGUF file in the shape of Llama 3.1 8B, in Q4_K, of 128,256 tokens.

q and k are random blocks, the rest is a hole in a sparse file, which reads as zeros. Prints, and writes the JSON.

    python -m benchmarks.gguf_large    # needs 5 GB of disk
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import asdict
from pathlib import Path

import numpy as np

from benchmarks.machine import COMMAND, machine, measure
from benchmarks.shapes import SHAPES, Shape
from gatenorm_stream.checkpoint.gguf_header import build_header
from gatenorm_stream.checkpoint.gguf_metadata import ARRAY, STRING, Value, string
from gatenorm_stream.checkpoint.gguf_types import NUMBERS, TYPES
from gatenorm_stream.checkpoint.tensors import TensorInfo, with_offsets
from gatenorm_stream.sources.ranges import ByteRange

RESULT = Path(__file__).parent / "results" / "gguf_large.json"
SHAPE = SHAPES["8B"]
SCALES_AT = {
    "Q4_K": (0, 2),
    "Q5_K": (0, 2),
    "Q6_K": (208,),
    "Q8_0": (0,),
    "Q4_0": (0,),
    "Q4_1": (0, 2),
    "IQ4_NL": (0,),
}
"""Where in a block its scale stands, and its offset."""
SCALES = np.array([[0.001], [0.005]], np.float16).view(np.uint8)


def strings(count: int) -> Value:
    items = b"".join(string(f"token {n}").raw for n in range(count))
    return Value(ARRAY, STRING.to_bytes(4, "little") + count.to_bytes(8, "little") + items)


def metadata(shape: Shape) -> dict[str, Value]:
    sizes = {
        "block_count": shape.layers,
        "embedding_length": shape.hidden,
        "feed_forward_length": shape.intermediate,
        "attention.head_count": shape.heads,
        "attention.head_count_kv": shape.kv_heads,
    }
    return {
        "general.architecture": string("llama"),
        **{f"llama.{key}": Value(4, n.to_bytes(4, "little")) for key, n in sizes.items()},
        "llama.attention.layer_norm_rms_epsilon": Value(6, np.float32(1e-5).tobytes()),
        "tokenizer.ggml.tokens": strings(shape.vocabulary),
        "tokenizer.ggml.merges": strings(2 * shape.vocabulary),
    }


def tensors(of: Shape, dtype: str) -> list[TensorInfo]:
    stored = TYPES[NUMBERS[dtype]]
    q, kv, hidden, wide = of.hidden, of.kv_heads * of.head_dim, of.hidden, of.intermediate
    shapes = {"token_embd.weight": (of.vocabulary, hidden), "output_norm.weight": (hidden,)}
    for n in range(of.layers):
        parts = {"attn_q": (q, hidden), "attn_k": (kv, hidden), "attn_v": (kv, hidden), "attn_output": (hidden, q)}
        parts |= {"ffn_gate": (wide, hidden), "ffn_up": (wide, hidden), "ffn_down": (hidden, wide)}
        parts |= {"attn_norm": (hidden,), "ffn_norm": (hidden,)}
        shapes |= {f"blk.{n}.{part}.weight": shape for part, shape in parts.items()}
    found = []
    for name, shape in shapes.items():
        matrix = len(shape) > 1
        size = int(np.prod(shape)) // stored.elements * stored.bytes if matrix else 4 * shape[0]
        found.append(TensorInfo(name, dtype if matrix else "F32", shape, ByteRange(0, size)))
    return found


def write(path: Path, shape: Shape = SHAPE, dtype: str = "Q4_K") -> int:
    """Gives the bytes of q and k."""
    values, placed, block_bytes = (
        metadata(shape),
        with_offsets(tensors(shape, dtype), 32),
        TYPES[NUMBERS[dtype]].bytes,
    )
    header, rng, scored = build_header(values, placed), np.random.default_rng(0), 0
    with open(path, "wb") as file:
        file.write(header)
        for t in placed:
            if ".attn_q." in t.name or ".attn_k." in t.name:
                blocks = rng.integers(0, 256, (len(t.data) // block_bytes, block_bytes), dtype=np.uint8)
                for at, scale in zip(SCALES_AT[dtype], SCALES, strict=False):
                    blocks[:, at : at + 2] = scale
                file.seek(len(header) + t.data.start)
                file.write(blocks.tobytes())
                scored += len(t.data)
        file.truncate(len(header) + placed[-1].data.stop)
    return scored


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        model, out = Path(folder, "model.gguf"), Path(folder, "out.gguf")
        scored = write(model)
        rows = []
        for what, *words in (
            ("score", "score", model),
            ("prune", model, "--out", out),
            ("verify", "verify", out),
            ("verify --against", "verify", out, "--against", model),
        ):
            measured = measure(COMMAND, *words, "--quiet")
            rows.append({"what": what, **asdict(measured)})
            print(f"{what:<17} {measured.seconds:6.1f} s {measured.peak_rss / 1e6:6.0f} MB")
        result = {"machine": machine(), "model_bytes": model.stat().st_size, "qk_bytes": scored, "runs": rows}
    RESULT.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
