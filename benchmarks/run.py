"""All of the speed claims, measured side by side in one run on inputs made here (`make bench`).

    python -m benchmarks.run [--work DIR] [--only scoring,joint,...]      BENCH=quick: small shapes, minutes less

Takes turns between the rivals, so that a busy machine is unfair to none, and reports the best of the rounds and all
of them. Writes benchmarks/results/speed.json, from which `python -m benchmarks.performance_tables` fills
docs/performance.md and `python -m benchmarks.pictures` draws two charts.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.machine import COMMAND, machine, measure
from benchmarks.shapes import SHAPES, Shape, write_sparse

HERE = Path(__file__).parent
RESULTS = HERE / "results"
QUICK = os.environ.get("BENCH") == "quick"
ROUNDS = 1 if QUICK else 3
THREADS = len(os.sched_getaffinity(0))
Row = dict[str, object]


def rival(name: str, model: Path, threads: int = THREADS) -> tuple[float, list[float]]:
    words = [sys.executable, HERE / "rivals.py", name, model, threads]
    done = subprocess.run([str(w) for w in words], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{name} failed: {done.stderr}")
    told = json.loads(done.stdout.splitlines()[-1])
    return told["seconds"], told["scores"]


def compare(what: str, model: Path, names: Sequence[str], scale: float = 1.0, cold: bool = False) -> list[Row]:
    """Rounds of all rivals in turn; `difference` is the largest of a score from the first rival's that has any."""
    times: dict[str, list[float]] = {name: [] for name in names}
    scores: dict[str, list[float]] = {}
    for _ in range(ROUNDS):
        for name in names:
            if cold:
                forget(model)
            seconds, scores[name] = rival(name, model)
            times[name].append(seconds * scale)
    ours = next((s for name, s in scores.items() if name.startswith("ours")), [])
    rows: list[Row] = []
    for name in names:
        pairs = zip(scores[name], ours, strict=False)
        difference = max((abs(a - b) / b for a, b in pairs), default=None) if name != "ours_stored" else None
        best = min(times[name])
        rows.append({"what": what, "who": name, "seconds": best, "all": times[name], "difference": difference})
        print(f"{what:26} {name:22} {best:8.2f} s   of {[round(t, 2) for t in times[name]]}", flush=True)
    return rows


def forget(folder: Path) -> None:
    """Puts the folder's files out of the page cache."""
    for path in folder.iterdir():
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def layers(shape: Shape, count: int) -> Shape:
    return replace(shape, layers=min(count, shape.layers))


def scoring(work: Path) -> list[Row]:
    rows: list[Row] = []
    names = ["read", "ours", "torch_per_head", "safetensors_numpy", "torch_bf16"]
    for name, dtype in (("13B", "BF16"), ("13B", "F16"), ("70B", "BF16")):
        shape = layers(SHAPES[name], 2 if QUICK else 20 if name == "13B" else 10)
        model = write_sparse(shape, work / "model", dtype=dtype)
        what = f"{name} {dtype}, {shape.layers} layers"
        rows += compare(what, model, names if dtype == "BF16" else names[:-1])
        if name == "13B" and dtype == "BF16":
            rows += compare(f"{what}, cold", model, names[:2], cold=True)
            shutil.rmtree(model)
            shape = layers(SHAPES[name], 2 if QUICK else 40)
            model = write_sparse(shape, work / "model", dtype=dtype)
            rows += compare(f"{name} {dtype}, {shape.layers} layers", model, names[:2])
        shutil.rmtree(model)
    return rows


def joint(work: Path) -> list[Row]:
    rows: list[Row] = []
    for name in ("13B", "70B"):
        shape = layers(SHAPES[name], 1 if QUICK else 2 * THREADS)
        model = write_sparse(shape, work / "model")
        names = ["ours_joint", "blas_joint", "torch_joint", "ours_stored"]
        rows += compare(f"{name} joint, {shape.layers} layers", model, names)
        shutil.rmtree(model)
    return rows


def loading(work: Path) -> list[Row]:
    """transformers holds the whole model; the 1B shape stands for larger ones by its bytes."""
    shape = layers(SHAPES["1B"], 2 if QUICK else 99)
    model = write_sparse(shape, work / "model", dense=True)
    rows = compare(f"1B, {shape.layers} layers", model, ["ours", "torch_per_head", "transformers_per_head"])
    shutil.rmtree(model)
    return rows


def pruning(work: Path) -> list[Row]:
    """Whole commands, and `cp` with fsync of the source and of what our output holds."""
    shape = layers(SHAPES["1B"], 3 if QUICK else 99)
    model = write_sparse(shape, work / "model", dense=True)
    rows: list[Row] = []
    for place, folder in (("here", work), *reflinking(work, 3 * size(model))):
        if folder != work:
            shutil.copytree(model, folder / "model")
        for cold in (False, True):
            rows += _pruning(f"{place}, {'cold' if cold else 'warm'}", folder, cold)
        if folder != work:
            subprocess.run(["umount", str(folder)], check=True)
    rows += merging(work, shape)
    return rows


def _pruning(what: str, folder: Path, cold: bool) -> list[Row]:
    model, out, copy = folder / "model", folder / "out", folder / "copy"
    gone = "1" if QUICK else "16-19"
    acts: dict[str, Callable[[], object]] = {
        "prune": lambda: measure(COMMAND, model, "--out", out, "--layers", gone, "--quiet"),
        "cp kept": lambda: copied(out, copy),
        "cp source": lambda: copied(model, copy),
    }
    times: dict[str, list[float]] = {name: [] for name in acts}
    for _ in range(ROUNDS):
        for name, act in acts.items():
            shutil.rmtree(copy, ignore_errors=True)
            if name == "prune":
                shutil.rmtree(out, ignore_errors=True)
            os.sync()
            for source in filter(Path.exists, (model, out)):
                (forget if cold else warm)(source)
            begun = time.perf_counter()
            act()
            times[name].append(time.perf_counter() - begun)
    for name, found in times.items():
        print(f"prune {what:20} {name:10} {min(found):7.2f} s   of {[round(t, 2) for t in found]}", flush=True)
    moved = {"prune": size(out), "cp kept": size(out), "cp source": size(model)}
    shutil.rmtree(out)
    shutil.rmtree(copy)
    return [
        {"what": what, "who": name, "seconds": min(found), "all": found, "bytes": moved[name]}
        for name, found in times.items()
    ]


def size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


def warm(folder: Path) -> None:
    for path in folder.iterdir():
        with path.open("rb", buffering=0) as file:
            while file.read(16 << 20):
                pass


def copied(source: Path, target: Path) -> None:
    """As cp does by itself, reflinks and all, then on the disk."""
    subprocess.run(["cp", "-r", source, target], check=True)
    subprocess.run(["sync", *target.iterdir(), target], check=True)


def reflinking(work: Path, room: int) -> list[tuple[str, Path]]:
    """A btrfs or xfs image, mounted, if this machine has the tools and lets us."""
    image, folder = work / "image", work / "mounted"
    for kind, make in (("btrfs", "mkfs.btrfs"), ("xfs", "mkfs.xfs")):
        if not shutil.which(make):
            print(f"no {make} here")
            continue
        with image.open("wb") as file:
            file.truncate(max(room, 1 << 30))
        folder.mkdir(exist_ok=True)
        made = subprocess.run([make, "-q", str(image)], capture_output=True, text=True)
        mounted = subprocess.run(["mount", "-o", "loop", str(image), str(folder)], capture_output=True, text=True)
        if not made.returncode and not mounted.returncode:
            return [(kind, folder)]
        print(f"{kind} can't be mounted here: {(made.stderr + mounted.stderr).strip().splitlines()[-1]}")
        image.unlink()
    return []


def merging(work: Path, shape: Shape) -> list[Row]:
    """mergekit's passthrough with o_proj scaled to 0, and the same by us, in the format that only zeroes."""
    venv = HERE.parent / ".venv-mergekit"
    tool = venv / "bin" / "mergekit-yaml"
    if not tool.exists():
        if QUICK:
            print("mergekit is not installed; left out of a quick run")
            return []
        subprocess.run([sys.executable, "-m", "venv", venv], check=True)
        done = subprocess.run([venv / "bin/pip", "install", "-q", "mergekit"], capture_output=True, text=True)
        if done.returncode:
            print(f"mergekit does not install here: {done.stderr.splitlines()[-1]}")
            return []
    model, out = work / "model", work / "out"
    dropped = list(range(shape.layers - shape.layers // 5, shape.layers))
    slices = [_slice(model, 0, dropped[0], None), _slice(model, dropped[0], shape.layers, 0.0)]
    config = work / "merge.json"
    config.write_text(json.dumps({"merge_method": "passthrough", "dtype": "bfloat16", "slices": slices}))
    chosen = ",".join(map(str, dropped))
    rows: list[Row] = []
    times: dict[str, list[float]] = {"mergekit": [], "gatenorm-stream": []}
    for _ in range(min(2, ROUNDS)):
        for name, words in (
            ("mergekit", [tool, config, out, "--no-copy-tokenizer", "--quiet"]),
            (
                "gatenorm-stream",
                [COMMAND, model, "--out", out, "--format", "zeroed", "--layers", chosen, "--quiet"],
            ),
        ):
            shutil.rmtree(out, ignore_errors=True)
            warm(model)
            begun = time.perf_counter()
            done = subprocess.run([str(w) for w in words], capture_output=True, text=True)
            if done.returncode:
                print(f"{name} failed: {(done.stderr or done.stdout).strip().splitlines()[-1]}")
                return []
            subprocess.run(["sync", *out.iterdir(), out], check=True)
            times[name].append(time.perf_counter() - begun)
    for name, found in times.items():
        rows.append({"what": "zeroed", "who": name, "seconds": min(found), "all": found})
        print(f"zeroed {name:18} {min(found):7.2f} s   of {[round(t, 2) for t in found]}", flush=True)
    return rows


def _slice(model: Path, start: int, stop: int, scale: float | None) -> dict[str, object]:
    source: dict[str, object] = {"model": str(model), "layer_range": [start, stop]}
    if scale is not None:
        source["parameters"] = {"scale": [{"filter": "o_proj", "value": scale}, {"value": 1.0}]}
    return {"sources": [source]}


def memory(work: Path) -> list[Row]:
    """Peak resident memory of whole commands. Of 405B, an eighth of each head holds numbers, the rest is holes."""
    rows: list[Row] = []
    for name in ("1B",) if QUICK else ("1B", "13B", "70B", "405B"):
        model = write_sparse(SHAPES[name], work / "model", rows=1 / 8 if name == "405B" else 1)
        rows.append(peak(name, "score", model, "score", model))
        if name in ("1B", "13B") and shutil.disk_usage(work).free > 1.3 * size(model):
            rows += pruned_and_verified(name, model, work / "out")
        shutil.rmtree(model)
    return rows


def giants(work: Path) -> list[Row]:
    """Pruning what the disk has no room for, of holes mostly, where files share blocks; only if it is asked for."""
    rows: list[Row] = []
    for _, folder in reflinking(work, 1_200_000_000_000):
        for name in ("70B", "405B"):
            model = write_sparse(SHAPES[name], folder / "model", rows=1 / 8)
            rows.append(peak(name, "prune", model, model, "--out", folder / "out"))
            shutil.rmtree(model)
            shutil.rmtree(folder / "out")
        subprocess.run(["umount", str(folder)], check=True)
    return rows


def pruned_and_verified(name: str, model: Path, out: Path) -> list[Row]:
    rows = [
        peak(name, "prune", model, model, "--out", out),
        peak(name, "verify", model, "verify", out, "--against", model),
    ]
    shutil.rmtree(out)
    return rows


def peak(name: str, what: str, model: Path, *words: object) -> Row:
    found = measure(COMMAND, *words, "--quiet")
    print(f"{name:>5} {what:6} {found.seconds:8.2f} s   peak {found.peak_rss / 1e6:4.0f} MB", flush=True)
    return {
        "what": what,
        "shape": name,
        "weights": size(model),
        "seconds": found.seconds,
        "peak_rss": found.peak_rss,
    }


def start(work: Path) -> list[Row]:
    """Least of ten, in turns."""
    commands = {
        "python -c 'import typer'": (sys.executable, "-c", "import typer"),
        "gatenorm-stream --help": (COMMAND, "--help"),
        "gatenorm-stream --version": (COMMAND, "--version"),
        "gatenorm-stream families": (COMMAND, "families"),
        "python -c 'import gatenorm_stream'": (sys.executable, "-c", "import gatenorm_stream"),
        "python -c pass": (sys.executable, "-c", "pass"),
    }
    times: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(3 if QUICK else 10):
        for name, words in commands.items():
            begun = time.perf_counter()
            subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
            times[name].append(time.perf_counter() - begun)
    for name, found in times.items():
        print(f"{name:36} {min(found) * 1000:5.0f} ms")
    return [{"who": name, "seconds": min(found), "all": found} for name, found in times.items()]


def growth(work: Path) -> list[Row]:
    """One size grows, all else stays. `exponent` is the slope of log time over log size between the last two."""
    base = Shape("growth", "none", 8, 2048, 16, 16, 256, 256)
    steps = (1, 2) if QUICK else (1, 2, 4, 8)
    series: dict[str, list[tuple[int, Shape, int]]] = {
        "layers": [(8 * s, replace(base, layers=8 * s), 1 << 40) for s in steps],
        "width": [(1024 * s, replace(base, hidden=1024 * s, heads=8 * s, kv_heads=8 * s), 1 << 40) for s in steps],
        "key heads": [(4 * s, replace(base, heads=32, hidden=4096, kv_heads=4 * s), 1 << 40) for s in steps],
        "shards": [(s, base, size_of(base) // s) for s in steps],
    }
    rows: list[Row] = []
    for name, points in series.items():
        found = []
        for value, shape, shard in points:
            model = write_sparse(shape, work / "model", shard_bytes=shard)
            seconds = min(rival("ours", model)[0] for _ in range(ROUNDS))
            found.append((value, seconds))
            shutil.rmtree(model)
        (x, t), (x2, t2) = found[-2:]
        exponent = math.log(t2 / t) / math.log(x2 / x)
        rows.append({"what": name, "points": found, "exponent": exponent})
        print(f"time over {name:10} {[(x, round(t, 3)) for x, t in found]}, exponent {exponent:.2f}", flush=True)
    return rows


def size_of(shape: Shape) -> int:
    return sum(2 * math.prod(dims) for dims in shape.tensors().values())


def blas_kernel() -> str:
    """Which of its kernels the OpenBLAS of numpy's wheel runs here."""
    for path in Path(np.__file__).parent.parent.glob("numpy.libs/*openblas*"):
        name = ctypes.CDLL(str(path)).scipy_openblas_get_corename64_
        name.restype = ctypes.c_char_p
        return str(name().decode())
    return "unknown"


SECTIONS: dict[str, Callable[[Path], list[Row]]] = {
    section.__name__: section for section in (start, scoring, joint, loading, pruning, memory, growth, giants)
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, help="directory for the models; the system's temporary one by default")
    parser.add_argument("--only", help=f"some of {','.join(SECTIONS)}; all but giants (10 minutes) by default")
    parser.add_argument("--results", type=Path, default=RESULTS / "speed.json", help="what is not run anew is kept")
    args = parser.parse_args()
    target: Path = args.results
    content = json.loads(target.read_text()) if target.exists() else {"sections": {}}
    for name in args.only.split(",") if args.only else [name for name in SECTIONS if name != "giants"]:
        print(f"-- {name} (load {os.getloadavg()[0]:.1f})", flush=True)
        load = os.getloadavg()[0]
        with tempfile.TemporaryDirectory(dir=args.work) as work:
            rows = SECTIONS[name](Path(work))
        content["sections"][name] = {"load": load, "machine": {**machine(), "blas": blas_kernel()}, "rows": rows}
        if not QUICK:
            target.write_text(json.dumps(content, indent=1) + "\n")
    if not QUICK:
        print(f"wrote {target}; python -m benchmarks.pictures draws it")


if __name__ == "__main__":
    main()
