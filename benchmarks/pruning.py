"""Pruning beside `cp` of the bytes that stay, both on the disk at the end, and what of it takes how long.

    python -m benchmarks.pruning [--work DIR] [--layers 3] [--rounds 5] [--beside OTHER]     BENCH=quick: small

Whole commands, start-up and scoring included, of the 13B shape cut to a few layers, without holes, warm (three
layers: 8 GB of disk). All take turns; wall time and processor time of each, medians and ranges. `--beside` names
another state of the code (`git worktree add`). Writes benchmarks/results/pruning.json. The parts are what pruning
does beyond copying, each alone:

- score: the start of the command and the scores;
- read: the bytes that stay, read once more;
- digest: BLAKE3 of them, the same reading included, on one thread;
- sync: `cp` less the same `cp` that leaves its bytes in memory.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from benchmarks.machine import COMMAND, machine
from benchmarks.run import copied, size, warm
from benchmarks.shapes import SHAPES, write_sparse

HERE = Path(__file__).parents[1]
RESULT = HERE / "benchmarks" / "results" / "pruning.json"
QUICK = os.environ.get("BENCH") == "quick"

READ = """
import sys
from pathlib import Path
from blake3 import blake3
digest, memory = blake3(), memoryview(bytearray(1 << 20))
for path in Path(sys.argv[2]).iterdir():
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(memory):
            if sys.argv[1] == "digest":
                digest.update(memory[:count])
"""


def taken(act: Callable[[], object]) -> tuple[float, float]:
    """Seconds of wall time, and of processor time of the processes that it started."""
    before, begun = os.times(), time.perf_counter()
    act()
    seconds, after = time.perf_counter() - begun, os.times()
    return seconds, sum(after[2:4]) - sum(before[2:4])


def pruned(code: Path, model: Path, out: Path) -> None:
    words = [COMMAND, model, "--out", out, "--drop", "1", "--quiet"]
    subprocess.run(list(map(str, words)), env={**os.environ, "PYTHONPATH": str(code)}, check=True)


def acts(model: Path, work: Path, beside: Path | None) -> dict[str, Callable[[], object]]:
    out, copy = work / "out", work / "copy"
    kept = work / "kept"
    chosen: dict[str, Callable[[], object]] = {
        "prune": lambda: pruned(HERE, model, out),
        "cp": lambda: copied(kept, copy),
        "cp, not synced": lambda: subprocess.run(["cp", "-r", kept, copy], check=True),
        "score": lambda: subprocess.run([COMMAND, "score", str(model), "--quiet"], check=True, stdout=-3),
        "read": lambda: subprocess.run([sys.executable, "-c", READ, "read", kept], check=True),
        "digest": lambda: subprocess.run([sys.executable, "-c", READ, "digest", kept], check=True),
    }
    if beside:
        chosen = {"before": lambda: pruned(beside, model, out), **chosen}
    return chosen


def measured(work: Path, layers: int, rounds: int, beside: Path | None) -> dict[str, object]:
    shape = replace(SHAPES["1B" if QUICK else "13B"], layers=layers)
    model = write_sparse(shape, work / "model", dense=True)
    pruned(HERE, model, work / "kept")
    wall: dict[str, list[float]] = {}
    processor: dict[str, list[float]] = {}
    for _ in range(rounds):
        for name, act in acts(model, work, beside).items():
            for place in ("out", "copy"):
                shutil.rmtree(work / place, ignore_errors=True)
            os.sync()
            warm(model)
            warm(work / "kept")
            seconds, used = taken(act)
            wall.setdefault(name, []).append(round(seconds, 3))
            processor.setdefault(name, []).append(round(used, 3))
    return {
        "model": f"{shape.name}, {layers} layers",
        "bytes": size(work / "kept"),
        "seconds": wall,
        "processor seconds": processor,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--work", type=Path)
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=1 if QUICK else 5)
    parser.add_argument("--beside", type=Path)
    args = parser.parse_args()
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(dir=args.work) as work:
        found = measured(Path(work), args.layers, args.rounds, args.beside)
    for kind in ("seconds", "processor seconds"):
        for name, times in found[kind].items():  # type: ignore[attr-defined]
            print(f"{kind:18} {name:16} {statistics.median(times):6.2f} ({min(times):.2f} to {max(times):.2f})")
    if not QUICK:
        result = {"machine": machine(), "load": [load, os.getloadavg()[0]], **found}
        RESULT.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
