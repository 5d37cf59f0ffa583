"""The streamed forward pass: how its time grows with the tokens, and with the number of choices that it judges.

    python -m benchmarks.forward_growth [--work DIR]      two minutes; BENCH=quick: a small shape, seconds

The model has the shape of 1B, cut to `LAYERS` layers and its whole head. 64 choices are all that there are of which
of its layers lose their attention; fewer are the first ones in an order drawn once. Each point is the least of the
rounds, in which all points take turns; the exponent is that of processor time. Writes
benchmarks/results/forward_growth.json; `python -m benchmarks.pictures` draws it.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import tempfile
import time
from dataclasses import replace
from itertools import combinations
from pathlib import Path

os.environ |= dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")

import numpy as np

from benchmarks.forward import QUICK, TINY
from benchmarks.machine import machine
from benchmarks.shapes import SHAPES, write_sparse
from gatenorm_stream.families.open import open_model
from gatenorm_stream.measuring.decoder import Decoder
from gatenorm_stream.measuring.forward import run
from gatenorm_stream.measuring.numpy_decoder import numpy_decoder
from gatenorm_stream.measuring.variants import Variant
from gatenorm_stream.sources.open import open_source

RESULT = Path(__file__).parent / "results" / "forward_growth.json"
LAYERS = 6
ROUNDS = 1 if QUICK else 2
TOKENS = (64, 128, 256, 512, 1024, 2048)
CHOICES = (1, 2, 4, 8, 16, 32, 64)
OF_EACH_CHOICE = 128
"""Tokens that a choice is judged on."""


def choices() -> list[Variant]:
    subsets = [Variant(dropped) for count in range(LAYERS + 1) for dropped in combinations(range(LAYERS), count)]
    random.Random(0).shuffle(subsets)
    return subsets


def seconds(decoder: Decoder, tokens: int, variants: list[Variant]) -> tuple[float, float]:
    """By the clock, and of the processors: all choices are judged on one row of tokens."""
    ids = np.random.default_rng(0).integers(0, 1000, tokens)
    begun, used = time.perf_counter(), time.process_time()
    run(decoder, ids, ids, variants, looks=False, whole=False)
    return time.perf_counter() - begun, time.process_time() - used


def measured(model: Path) -> list[dict[str, object]]:
    every = choices()
    points = [("tokens", count, count, [Variant(())]) for count in TOKENS]
    points += [("choices", count, OF_EACH_CHOICE, every[:count]) for count in CHOICES]
    found: dict[tuple[str, int], list[tuple[float, float]]] = {(what, count): [] for what, count, _, _ in points}
    with open_model(open_source(model)) as opened, numpy_decoder(opened) as decoder:
        seconds(decoder, TOKENS[0], [Variant(())])
        for _ in range(ROUNDS):
            for what, count, tokens, variants in points:
                found[what, count].append(seconds(decoder, tokens, variants))
    rows = []
    for what in ("tokens", "choices"):
        least = [
            (count, *map(min, zip(*times, strict=True))) for (name, count), times in found.items() if name == what
        ]
        (x, _, t), (x2, _, t2) = least[-2:]
        exponent = math.log(t2 / t) / math.log(x2 / x)
        print(what, *(f"{count}: {clock:.2f} s ({used:.2f})" for count, clock, used in least), f"{exponent:.2f}")
        rows.append(
            {
                "what": what,
                "points": [(count, clock) for count, clock, _ in least],
                "processor": [(count, used) for count, _, used in least],
                "exponent": exponent,
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--work", type=Path)
    chosen = parser.parse_args()
    shape = replace(TINY if QUICK else SHAPES["1B"], layers=LAYERS)
    begun = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(dir=chosen.work) as folder:
        rows = measured(write_sparse(shape, Path(folder) / "model", dtype="BF16", dense=True))
    told = {"layers": LAYERS, "tokens of each choice": OF_EACH_CHOICE, "load": [begun, os.getloadavg()[0]]}
    if not QUICK:
        RESULT.write_text(json.dumps({"machine": machine(), **told, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
