"""What scoring costs over its products, and quantised numbers over bfloat16: seconds of processor time, in turns.

    python -m benchmarks.widening                       # 3 minutes, 4 GB of disk
    python -m benchmarks.widening --beside /tmp/before  # another state of the code, from `git worktree add`
    python -m benchmarks.widening --pieces              # other sizes of the pieces in which rows are widened

"The products alone" widens the stored bits by a shift (without looking for inf and nan) and multiplies, head by
head, from memory, on as many threads. Start-up is counted on no side. Prints medians of the rounds, which other
work on the machine disturbs less than wall time, the least, and the median of the ratios.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from benchmarks import gguf_large
from benchmarks.machine import machine
from benchmarks.shapes import SHAPES, write_sparse

RESULT = Path(__file__).parent / "results" / "widening.json"
HERE = Path(__file__).parents[1]
FIXTURE = HERE / "fixtures" / "sotu-5m"
THREADS, LAYERS = 2, 8
DTYPES = ("BF16", "F16")
PIECES = tuple(1 << power for power in range(14, 23, 2))

SCORE = """
import resource, sys
sys.path.insert(0, sys.argv[1])
import numpy, gatenorm_stream, gatenorm_stream.sources.open
from gatenorm_stream.families import rows
if sys.argv[3]:
    rows.PIECE = int(sys.argv[3])
def used():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime
threads = int(sys.argv[4])
gatenorm_stream.score(sys.argv[5], threads=threads)  # what is imported only when it is needed
begun = used()
gatenorm_stream.score(sys.argv[2], threads=threads)
print(used() - begun)
"""

PRODUCTS = """
import resource, sys
from concurrent.futures import ThreadPoolExecutor
import numpy as np
dtype, threads, heads, dim, hidden = sys.argv[1], *map(int, sys.argv[2:])
numbers = np.random.default_rng(0).standard_normal((16, dim, hidden), dtype=np.float32) * np.float32(0.02)
stored = numbers.astype("f2").view("u2") if dtype == "F16" else (numbers.view("u4") >> 16).astype("u2")
def work(_):
    wide = np.empty((dim, hidden + 16), np.float32)[:, :hidden]
    bits = wide.view("i4")
    for head in range(heads // threads):
        if dtype == "F16":
            np.copyto(bits, stored[head % 16].view("i2"))
            np.left_shift(bits, 13, out=bits)
            np.bitwise_and(bits, (1 << 28) - 1 - (1 << 31), out=bits)
            np.multiply(wide, np.float32(2.0**112), out=wide)
        else:
            np.copyto(bits, stored[head % 16])
            np.left_shift(bits, 16, out=bits)
        wide @ wide.T
before = resource.getrusage(resource.RUSAGE_SELF)
with ThreadPoolExecutor(threads) as pool:
    list(pool.map(work, range(threads)))
after = resource.getrusage(resource.RUSAGE_SELF)
print(after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)
"""


def seconds(code: str, *words: object) -> float:
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-c", code, *map(str, words)]
    return float(subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True).stdout)


def models(folder: Path) -> Iterator[tuple[str, Path]]:
    for dtype in DTYPES:
        yield f"13B {dtype}", write_sparse(replace(SHAPES["13B"], layers=LAYERS), folder / dtype, dtype=dtype)
    shape = replace(SHAPES["8B"], layers=LAYERS)
    yield "8B BF16", write_sparse(shape, folder / "8B")
    for dtype in gguf_large.SCALES_AT:
        path = folder / f"{dtype}.gguf"
        gguf_large.write(path, shape, dtype)
        yield f"8B {dtype}", path


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--beside", type=Path)
    parser.add_argument("--pieces", action="store_true")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    shape = SHAPES["13B"]
    heads = LAYERS * (shape.heads + shape.kv_heads)
    before = args.beside.resolve() if args.beside else None
    acts: dict[str, Callable[[], float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, path in models(Path(folder)):
            if args.pieces and name not in ("13B BF16", "13B F16", "8B Q4_K"):
                continue
            if before and not args.pieces:
                acts[f"{name}, before"] = lambda path=path: seconds(SCORE, before, path, "", THREADS, FIXTURE)
            for piece in PIECES if args.pieces else ("",):
                called = f"{name}, pieces of {piece}" if piece else name
                acts[called] = lambda path=path, piece=piece: seconds(SCORE, HERE, path, piece, THREADS, FIXTURE)
        for dtype in DTYPES:
            acts[f"13B {dtype}, the products alone"] = lambda dtype=dtype: seconds(
                PRODUCTS, dtype, THREADS, heads, shape.head_dim, shape.hidden
            )
        load = os.getloadavg()[0]
        runs = [{name: act() for name, act in acts.items()} for _ in range(args.rounds)]
    found = {name: [run[name] for run in runs] for name in acts}
    for name, times in found.items():
        alone = f"{name.partition(',')[0]}, the products alone" if name.startswith("13B") else "8B BF16"
        over = [time / base for time, base in zip(times, found.get(alone, times), strict=True)]
        print(f"{name:32} {statistics.median(times):6.2f} s ({min(times):.2f})  {statistics.median(over):5.2f}")
    if not args.pieces:
        content = {"machine": machine(), "load": load, "layers": LAYERS, "threads": THREADS, "seconds": found}
        RESULT.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
