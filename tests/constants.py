"""Outputs with a constant vector in the place of each removed attention, as the package writes them."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import numpy.typing as npt

import gatenorm_stream

Vectors = Mapping[int, npt.NDArray[np.float32]]


def random_vectors(layers: tuple[int, ...], hidden: int, size: float = 0.3) -> Vectors:
    """Numbers with a standard deviation of `size`, which bfloat16 has to round."""
    rng = np.random.default_rng(7)
    return {layer: (size * rng.standard_normal(hidden)).astype(np.float32) for layer in layers}


def compensated_plan(source: Path, vectors: Vectors, format: str) -> gatenorm_stream.Plan:
    plan = gatenorm_stream.plan(source, layers=sorted(vectors), format=format)
    return replace(plan, constants={layer: v.astype("<f4").tobytes() for layer, v in vectors.items()})


def compensate(source: Path, vectors: Vectors, format: str, folder: Path) -> Path:
    """The output of a plan that was saved and read again, verified against its source."""
    out = folder / ("out.gguf" if source.suffix == ".gguf" else "out")
    saved = folder / "plan.json"
    saved.write_text(json.dumps(compensated_plan(source, vectors, format).to_json()))
    gatenorm_stream.prune(gatenorm_stream.read_plan(saved), out)
    gatenorm_stream.verify(out, against=source)
    return out


def rounded(vector: np.ndarray, dtype: str) -> bytes:
    """By Python's own arithmetic, a number at a time."""
    return b"".join(nearest(float(x), dtype) for x in vector)


def nearest(number: float, dtype: str) -> bytes:
    if dtype != "BF16":
        return struct.pack({"F64": "<d", "F32": "<f", "F16": "<e"}[dtype], number)
    (bits,) = struct.unpack("<I", struct.pack("<f", number))
    below, above = bits >> 16, (bits >> 16) + 1
    distances = [abs(Fraction(as_float(b)) - Fraction(number)) for b in (below, above)]
    best = above if distances[1] < distances[0] or (distances[0] == distances[1] and below % 2) else below
    return struct.pack("<H", best)


def as_float(bfloat16: int) -> float:
    return float(struct.unpack("<f", struct.pack("<I", bfloat16 << 16))[0])
