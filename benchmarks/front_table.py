"""Fills README's table of the public model from benchmarks/results/ (--check: is it what they say?)."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

from benchmarks.document import between, fill_or_check
from benchmarks.quality.answers import MEANS, PLAIN, Judged
from benchmarks.quality.runs import table

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
README = ROOT / "README.md"
BEGIN, END = "<!-- table: public model -->\n", "<!-- end -->"
COUNTS = {"L/8": 3, "L/5": 6, "L/3": 10}
"""The name of a count in results/constants, and how many of the 30 layers it is."""
CHOICES = {
    "no options: Gate-Norm": ("per-head", PLAIN),
    "at random, mean of 20": ("random 1", PLAIN),
    "`--by influence`": ("influence", PLAIN),
    "`--compensate`: Gate-Norm": ("per-head", MEANS),
    "at random, with constants": ("random 1", MEANS),
    "`--by influence --compensate`": ("influence", MEANS),
    "greedy by the loss, constants": ("greedy", MEANS),
}


def rows(loss: Judged, real: list[dict[str, Any]]) -> list[list[str]]:
    engine = {count: [r["llama.cpp"] for r in real if r["count"] == count] for count in (0, *COUNTS.values())}
    whole = engine[0][0]

    def saved(key: str, count: int, unit: float, places: int) -> str:
        mean = statistics.mean(run[key] for run in engine[count])
        return f"{mean / unit:.{places}f} ({100 * (mean / whole[key] - 1):+.0f}\u00a0%)".replace("-", "−")

    speeds = {count: [run["tokens_a_second"] for run in engine[count]] for count in COUNTS.values()}
    found = [
        [
            "file, MB",
            f"{whole['file_bytes'] / 1e6:.1f}",
            *(saved("file_bytes", n, 1e6, 1) for n in COUNTS.values()),
        ],
        ["KV cache, MiB", f"{whole['cache_mib']:.1f}", *(saved("cache_mib", n, 1, 1) for n in COUNTS.values())],
        [
            "tokens/s",
            f"{whole['tokens_a_second']:.0f}",
            *(f"{min(speeds[n]):.0f} to {max(speeds[n]):.0f}" for n in COUNTS.values()),
        ],
    ]
    for title, (criterion, constants) in CHOICES.items():
        found.append([title, "0", *(f"+{loss.rise(criterion, count, constants):.2f}" for count in COUNTS)])
    return found


def public_model() -> str:
    loss = Judged("SmolLM2", json.loads((RESULTS / "constants" / "smollm2.json").read_text("utf-8")))
    real = json.loads((RESULTS / "real_model.json").read_text("utf-8"))["runs"]
    head = ["of 30 sublayers gone", "none", "3 (default)", "6", "10"]
    told = rows(loss, real)
    told.insert(3, ["**the loss rises, chosen by**", "", "", "", ""])
    return table(head, told)


def main() -> None:
    fill_or_check(__doc__, README, lambda text: between(text, BEGIN, END, public_model() + "\n"))


if __name__ == "__main__":
    main()
