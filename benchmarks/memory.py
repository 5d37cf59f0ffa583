"""Peak resident memory, and time, of scoring and pruning models of 1B to 70B shape.

    python benchmarks/memory.py [--shapes 1B,13B,70B] [--prune 1B,13B] [--work DIR]

Memory must not grow with the model: the claim is at most 300 MB beyond the interpreter with its imports. The models
are sparse files (benchmarks/shapes.py), deleted at the end; pruning 13B writes 25 GB, and is left out, and said so,
where the disk has no room.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from machine import COMMAND, Measured, machine, measure
from shapes import SHAPES, write_sparse

RESULTS = Path(__file__).parent / "results" / "memory.json"
IMPORTS = "import numpy, safetensors, typer, rich.progress, huggingface_hub.repocard_data"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", default="1B,13B,70B")
    parser.add_argument("--prune", default="1B,13B", help="shapes that are pruned too")
    parser.add_argument("--work", type=Path, help="directory for the models; the system's temporary one by default")
    args = parser.parse_args()

    interpreter = measure(sys.executable, "-c", IMPORTS)
    print(f"interpreter with imports: {interpreter.peak_rss / 1e6:.0f} MB")
    rows = []
    for name in args.shapes.split(","):
        with tempfile.TemporaryDirectory(dir=args.work) as work:
            rows += _measure_shape(name, Path(work), name in args.prune.split(","), interpreter)
    RESULTS.parent.mkdir(exist_ok=True)
    content = {"machine": machine(), "interpreter": asdict(interpreter), "runs": rows}
    RESULTS.write_text(json.dumps(content, indent=1) + "\n")
    print(f"wrote {RESULTS}")


def _measure_shape(name: str, work: Path, prune: bool, interpreter: Measured) -> list[dict[str, object]]:
    shape = SHAPES[name]
    model = write_sparse(shape, work / "model")
    rows: list[dict[str, object]] = []

    def run(what: str, moved: int, *args: object) -> None:
        measured = measure(COMMAND, *args, "--quiet")
        beyond = measured.peak_rss - interpreter.peak_rss
        print(
            f"{name:>4} {what:<16} {measured.seconds:7.2f} s {moved / 1e9:7.2f} GB "
            f"peak {measured.peak_rss / 1e6:4.0f} MB, {beyond / 1e6:4.0f} beyond the interpreter",
            flush=True,
        )
        rows.append({"shape": name, "what": what, "bytes": moved, **asdict(measured)})

    for attempt in ("first", "again"):
        run(f"score, {attempt}", shape.qk_bytes, "score", model)
    size = sum(path.stat().st_size for path in model.glob("*.safetensors"))
    if prune and shutil.disk_usage(work).free < 1.1 * size:
        print(f"{name:>4} prune left out: needs {1.1 * size / 1e9:.0f} GB of disk space")
    elif prune:
        run("prune", size, model, "--out", work / "out")
        run("verify", size, "verify", work / "out", "--against", model)
    return rows


if __name__ == "__main__":
    main()
