"""Outputs with a constant vector in the place of each removed attention, made by the installed command."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

import gatenorm_stream
from tests.conftest import COMMAND

Vectors = Mapping[int, npt.NDArray[np.float32]]


def random_vectors(layers: tuple[int, ...], hidden: int, size: float = 0.3) -> Vectors:
    """Numbers with a standard deviation of `size`, which bfloat16 has to round."""
    rng = np.random.default_rng(7)
    return {layer: (size * rng.standard_normal(hidden)).astype(np.float32) for layer in layers}


def compensated_plan(source: Path, vectors: Vectors, format: str) -> gatenorm_stream.Plan:
    plan = gatenorm_stream.plan(source, layers=sorted(vectors), format=format)
    return replace(plan, constants={layer: v.astype("<f4").tobytes() for layer, v in vectors.items()})


def compensate(source: Path, vectors: Vectors, format: str, folder: Path, *options: object) -> Path:
    """The output of a saved plan, verified against its source."""
    out = folder / ("out.gguf" if source.suffix == ".gguf" else "out")
    saved = folder / "plan.json"
    saved.write_text(json.dumps(compensated_plan(source, vectors, format).to_json()))
    command = [COMMAND, source, "--out", out, "--plan", saved, *options]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    gatenorm_stream.verify(out, against=source)
    return out
