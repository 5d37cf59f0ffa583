"""Bytes fetched from the Hub against the bytes that must be, and what several connections give.

    python -m benchmarks.hub_bytes [--work DIR]

Against the stand-in Hub of the tests, on the loopback. The models have the shape of TinyLlama 1.1B and Llama 2 13B
(sparse, benchmarks/shapes.py). Needed for a score: q, k, headers, config and index. For pruning: the bytes kept,
q and k of the layers that go, headers and the other files. Each connection is throttled to 100 MB/s.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.machine import COMMAND, machine, measure
from benchmarks.shapes import SHAPES, write_sparse
from gatenorm_stream.checkpoint.safetensors import open_checkpoint
from gatenorm_stream.families.model import read_model
from gatenorm_stream.sources.local import LocalSource
from tests.hub.hub_repository import Repository
from tests.hub.hub_server import Hub

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "hub_bytes.json"
RATE = 100e6
PORT = 8930


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, help="directory for the models; the system's temporary one by default")
    args = parser.parse_args()
    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory(dir=args.work) as folder:
        work = Path(folder)
        models = {name: write_sparse(SHAPES[name], work / name) for name in ("1B", "13B")}
        repositories = {f"org/{name}": Repository(model, hashed=False) for name, model in models.items()}
        os.environ["HF_HOME"] = str(work / "home")
        with Hub(repositories) as hub:
            os.environ["HF_ENDPOINT"] = hub.endpoint
            rows.append(_bytes(hub, "score", "13B", models["13B"], work))
            rows.append(_bytes(hub, "prune", "1B", models["1B"], work))
        for what, name in (("fetch", "1B"), ("score", "13B"), ("prune", "1B")):
            with _throttled(name, models[name]):
                rows += _fetching() if what == "fetch" else _speed(what, name, work)
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps({"machine": machine(), "runs": rows}, indent=1) + "\n")
    print(f"wrote {RESULTS}")


def _bytes(hub: Hub, what: str, name: str, model: Path, work: Path) -> dict[str, object]:
    hub.log.clear()
    measured = measure(COMMAND, *_arguments(what, name, work / "out", 8))
    fetched = sum(request.sent for request in hub.log if request.file)
    with open_checkpoint(LocalSource(model)) as checkpoint:
        read = read_model(checkpoint)
        headers = sum(shard.header.data_start for shard in checkpoint.shards)
        needed = headers + sum((model / f).stat().st_size for f in ("config.json", "model.safetensors.index.json"))
        layers = range(read.layers)
        if what == "prune":
            record = json.loads((work / "out" / "gatenorm.json").read_text())
            layers = record["dropped"]
            needed += sum(p.stat().st_size for p in (work / "out").glob("*.safetensors"))
        needed += sum(attention.bytes for attention in read.attention if attention.layer in layers)
    shutil.rmtree(work / "out", ignore_errors=True)
    print(f"{what} {name}: {fetched} bytes fetched, {needed} needed: {fetched / needed:.4f}")
    return {"what": what, "shape": name, "fetched": fetched, "needed": needed, "peak_rss": measured.peak_rss}


@contextmanager
def _throttled(name: str, model: Path) -> Iterator[None]:
    """The stand-in in a process of its own, so that it does not take turns with the one that is measured."""
    command = [
        sys.executable,
        "-m",
        "tests.hub.hub_server",
        model.absolute(),
        "--repo",
        f"org/{name}",
        "--port",
        PORT,
        "--rate",
        RATE / 1e6,
        "--unhashed",
    ]
    process = subprocess.Popen([str(word) for word in command], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout
        process.stdout.readline()
        os.environ["HF_ENDPOINT"] = f"http://127.0.0.1:{PORT}"
        yield
    finally:
        process.terminate()
        process.communicate()


def _fetching() -> list[dict[str, object]]:
    """Ranges of 4 MiB fetched and thrown away: what the connections give by themselves."""
    rows: list[dict[str, object]] = []
    for connections in (1, 8):
        command = [sys.executable, "-c", _FETCH, str(connections)]
        rate = float(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
        print(f"fetching alone, {connections} connections: {rate / 1e6:.0f} MB/s", flush=True)
        rows.append({"what": "fetch", "connections": connections, "bytes_per_second": rate})
    return rows


_FETCH = """
import sys, time
from concurrent.futures import ThreadPoolExecutor
from gatenorm_stream.sources.ranges import ByteRange
from gatenorm_stream.sources.open import open_source

connections = int(sys.argv[1])
source = open_source("org/1B")
file = source.open(next(name for name in source.names() if name.endswith(".safetensors")))
ranges = list(ByteRange(0, min(file.size, connections * 250_000_000)).chunks(4 << 20))
with ThreadPoolExecutor(connections) as pool:
    begun = time.perf_counter()
    fetched = sum(pool.map(lambda where: len(file.fetch(where)), ranges))
print(fetched / (time.perf_counter() - begun))
"""


def _speed(what: str, name: str, work: Path) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for connections in (1, 8):
        measured = measure(COMMAND, *_arguments(what, name, work / "out", connections))
        shutil.rmtree(work / "out", ignore_errors=True)
        print(
            f"{what} {name}, {connections} connections of {RATE / 1e6:.0f} MB/s: {measured.seconds:.2f} s, "
            f"peak {measured.peak_rss / 1e6:.0f} MB",
            flush=True,
        )
        rows.append(
            {
                "what": what,
                "shape": name,
                "connections": connections,
                "seconds": measured.seconds,
                "peak_rss": measured.peak_rss,
            }
        )
    print(f"{what} {name}: {rows[0]['seconds'] / rows[1]['seconds']:.2f}x")  # type: ignore[operator]
    return rows


def _arguments(what: str, name: str, out: Path, connections: int) -> list[object]:
    common = ["--connections", connections, "--quiet"]
    return ["score", f"org/{name}", *common] if what == "score" else [f"org/{name}", "--out", out, *common]


if __name__ == "__main__":
    main()
