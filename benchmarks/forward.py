"""The streamed forward pass: its time beside what it can't do without, its peak memory, and torch beside it.

    python -m benchmarks.forward [--work DIR] [--tokens 128] [--layers 4]      BENCH=quick: a small shape, seconds

`alone` is the least that a pass needs: every weight widened once, and BLAS for the products with it alone, of
numbers in memory. Time is taken on models cut to `--layers` layers, in turns, both with as many threads; peak
memory, which does not depend on the number of layers, is that of whole processes. Writes
benchmarks/results/forward.json.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from benchmarks import gguf_large
from benchmarks.machine import machine, measure
from benchmarks.shapes import SHAPES, Shape, write_sparse

RESULT = Path(__file__).parent / "results" / "forward.json"
QUICK = os.environ.get("BENCH") == "quick"
ROUNDS = 1 if QUICK else 3
THREADS = len(os.sched_getaffinity(0))
TINY = Shape("tiny", "none", 2, 256, 4, 2, 512, 1000)
BLOCK_ROWS = 256


def ours(model: Path, tokens: int) -> float:
    """A pass over one row of tokens, all of which go through all layers and the head."""
    import numpy as np

    from gatenorm_stream.families.open import open_model
    from gatenorm_stream.measuring.forward import losses_of
    from gatenorm_stream.measuring.numpy_decoder import numpy_decoder
    from gatenorm_stream.sources.open import open_source

    ids = np.random.default_rng(0).integers(0, 1000, tokens)
    begun = time.perf_counter()
    with open_model(open_source(model)) as opened, numpy_decoder(opened) as decoder:
        losses_of(decoder, ids)
    return time.perf_counter() - begun


def alone(model: Path, tokens: int) -> float:
    """Each shape of matrix once, times how often it is there. The embedding is looked up, not multiplied."""
    import numpy as np

    from gatenorm_stream.floats import widen_into

    index = json.loads((model / "model.safetensors.index.json").read_text())["weight_map"]
    header = {}
    for file in set(index.values()):
        with open(model / file, "rb") as shard:
            header |= json.loads(shard.read(int.from_bytes(shard.read(8), "little")))
    matrices: dict[tuple[int, int], int] = {}
    for name, entry in header.items():
        if len(entry["shape"]) == 2 and name != "model.embed_tokens.weight":
            matrices[tuple(entry["shape"])] = matrices.get(tuple(entry["shape"]), 0) + 1
    dtype, rng, seconds = header["lm_head.weight"]["dtype"], np.random.default_rng(0), 0.0
    with ThreadPoolExecutor(THREADS) as pool:

        def shared(rows: int, step: int, act: Callable[[int, slice], object]) -> float:
            """All rows, those of each thread in pieces of `step`."""
            own = -(-rows // THREADS)

            def share(thread: int) -> None:
                for start in range(thread * own, min(rows, (thread + 1) * own), step):
                    act(thread, slice(start, min(start + step, rows, (thread + 1) * own)))

            begun = time.perf_counter()
            list(pool.map(share, range(THREADS)))
            return time.perf_counter() - begun

        for (rows, columns), count in matrices.items():
            x = rng.standard_normal((tokens, columns), dtype=np.float32)
            w = rng.standard_normal((rows, columns), dtype=np.float32)
            y = np.empty((tokens, rows), np.float32)
            raw = [rng.integers(0, 1 << 14, (BLOCK_ROWS, columns), dtype=np.uint16) for _ in range(THREADS)]
            wide = [np.empty((BLOCK_ROWS, columns), np.float32) for _ in range(THREADS)]

            def widen(thread: int, part: slice, raw: list = raw, wide: list = wide) -> None:
                size = part.stop - part.start
                widen_into(wide[thread][:size], raw[thread][:size], dtype)

            def multiply(_: int, part: slice, x: np.ndarray = x, w: np.ndarray = w, y: np.ndarray = y) -> None:
                np.matmul(x, w[part].T, out=y[:, part])

            best = [
                min(shared(rows, step, act) for _ in range(3))
                for act, step in ((widen, BLOCK_ROWS), (multiply, rows))
            ]
            seconds += count * sum(best)
    return seconds


def torch_whole(model: Path, tokens: int) -> float:
    """transformers loads the model in float32 and runs the same tokens; the seconds are those of both."""
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.models.llama import modeling_llama  # noqa: F401, not part of the time

    torch.set_num_threads(THREADS)
    ids = torch.randint(0, 1000, (1, tokens))
    begun = time.perf_counter()
    loaded = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32, local_files_only=True)
    with torch.no_grad():
        loaded(ids)
    return time.perf_counter() - begun


WAYS: dict[str, Callable[[Path, int], float]] = {way.__name__: way for way in (ours, alone, torch_whole)}


def run_way(name: str, model: Path, tokens: int) -> dict[str, float]:
    """In a process of its own: its own seconds, and the peak memory of all of it."""
    blas = str(THREADS) if name == "torch_whole" else "1"
    os.environ |= dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), blas)
    with tempfile.NamedTemporaryFile("r") as told:
        words = (sys.executable, "-m", "benchmarks.forward", "--way", name, "--model", model, "--tokens", tokens)
        measured = measure(*words, "--tell", told.name)
        return {"seconds": float(told.read()), "process_seconds": measured.seconds, "peak_rss": measured.peak_rss}


def beside(
    what: str, model: Path, ways: tuple[str, ...], tokens: int, rounds: int = ROUNDS
) -> list[dict[str, object]]:
    """In turns; the best of the rounds."""
    runs: dict[str, list[dict[str, float]]] = {way: [] for way in ways}
    for _ in range(rounds):
        for way in ways:
            runs[way].append(run_way(way, model, tokens))
    rows = []
    for way, found in runs.items():
        best = min(found, key=lambda run: run["seconds"])
        shown = [round(run["seconds"], 2) for run in found]
        print(
            f"{what:24} {way:12} {best['seconds']:8.2f} s  {best['peak_rss'] / 1e6:6.0f} MB  of {shown}", flush=True
        )
        rows.append({"what": what, "who": way, **best, "all": shown})
    if {"ours", "alone"} <= runs.keys():
        least = {way: min(run["seconds"] for run in runs[way]) for way in ("ours", "alone")}
        print(f"{what:24} ratio        {least['ours'] / least['alone']:8.2f}", flush=True)
        rows.append({"what": what, "who": "ours / alone", "ratio": least["ours"] / least["alone"]})
    return rows


def cut(shape: Shape, layers: int) -> Shape:
    return replace(shape, layers=min(layers, shape.layers))


def everything(work: Path, tokens: int, layers: int) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    shapes = [TINY] if QUICK else [cut(SHAPES[name], layers) for name in ("1B", "13B", "70B")]
    for shape in shapes:
        for dtype in ("BF16", "F16") if shape.name in ("13B", "tiny") else ("BF16",):
            model = write_sparse(shape, work / "model", dtype=dtype, dense=shape.name != "70B")
            ways = ("ours",) if shape.name == "70B" else ("ours", "alone")
            rows += beside(f"{shape.name} {dtype}, {shape.layers} layers", model, ways, tokens)
            shutil.rmtree(model)
        path = work / "model.gguf"
        gguf_large.write(path, shape)
        rows += beside(f"{shape.name} Q4_K, {shape.layers} layers", path, ("ours",), tokens, rounds=1)
        path.unlink()
    whole = TINY if QUICK else SHAPES["1B"]
    model = write_sparse(whole, work / "model", dense=True)
    rows += beside(f"{whole.name} BF16, whole", model, ("ours", "torch_whole"), tokens)
    shutil.rmtree(model)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--work", type=Path)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--layers", type=int, default=4)
    for internal in ("way", "model", "tell"):
        parser.add_argument(f"--{internal}", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.way:
        Path(chosen.tell).write_text(str(WAYS[chosen.way](Path(chosen.model), chosen.tokens)))
        return
    with tempfile.TemporaryDirectory(dir=chosen.work) as folder:
        rows = everything(Path(folder), chosen.tokens, chosen.layers)
    result = {
        "machine": machine(),
        "threads": THREADS,
        "load": os.getloadavg()[0],
        "tokens": chosen.tokens,
        "rows": rows,
    }
    if not QUICK:
        RESULT.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
