"""HellaSwag in docs/evidence.md: of what the command wrote, and of block D in memory. All from stored results."""

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.quality.answers import COUNTS, DEFAULT, MEANS, PLAIN, Judged
from benchmarks.quality.constants_text import REAL
from benchmarks.quality.intervals import Interval
from benchmarks.quality.runs import table

GUESSING = 0.25
KEPT = 0.75
"""Of the unpruned model's distance to guessing: above it, accuracy hardly moves (PROTOCOL.md)."""
PLANNED = 2_000
BROKEN, MENDED = ("gate-norm", 6), ("gate-norm, constants", 6)


def accuracy_table(model: Judged) -> str:
    base = model.told["unpruned"]["hellaswag"]
    rows = []
    for criterion in (DEFAULT, "influence", "last", "greedy"):
        for constants, title in ((PLAIN, "nothing"), (MEANS, "constants")):
            cells = []
            for count in COUNTS:
                (rise,) = model.rises(criterion, count, constants)
                (change,) = model.rises(criterion, count, constants, "hellaswag")
                cells.append(f"{base + change:.3f} ({rise:+.2f})")
            rows.append((f"`{criterion}`", title, *cells))
    return table(("criterion", "in its place", *COUNTS), rows)


def paired(one: Mapping[str, Any], other: Mapping[str, Any]) -> Interval:
    """Of `acc_norm`, the first minus the second, task by task: normal, 95 %."""
    both = zip(one["right_norm"], other["right_norm"], strict=True)
    changes = [int(x) - int(y) for x, y in both]
    mean, half = statistics.mean(changes), 1.96 * statistics.stdev(changes) / math.sqrt(len(changes))
    return Interval(mean, mean - half, mean + half, len(changes))


def written_table(told: Mapping[str, Any]) -> str:
    whole, *_ = runs = told["hellaswag"]["runs"]
    engine = {(run["way"], run["count"]): run["llama.cpp"] for run in told["runs"]}
    base = engine["unpruned", 0]["loss"]["prose"]
    rows = []
    for run in runs:
        own = engine[run["way"], run["count"]]
        rows.append(
            (
                run["count"] or "none",
                run["way"],
                f"{own['loss']['prose'] - base:+.2f}",
                f"`{' '.join(own['goes_on']['The capital of France is'].split())[:40]}`",
                f"{run['acc']:.3f}",
                f"{run['acc_norm']:.3f}",
                "" if run is whole else paired(run, whole),
            )
        )
    head = ("gone", "how", "loss, prose", "The capital of France is", "acc", "acc_norm", "change, 95 % interval")
    return table(head, rows)


def judgement(told: Mapping[str, Any]) -> dict[str, object]:
    """What PROTOCOL.md lets one say of it."""
    part = told["hellaswag"]
    runs: Sequence[Mapping[str, Any]] = part["runs"]
    by = {(run["way"], run["count"]): run for run in runs}
    kept = (by[BROKEN]["acc_norm"] - GUESSING) / (runs[0]["acc_norm"] - GUESSING)
    apart = paired(by[MENDED], by[BROKEN])
    return {
        "written_tasks": f"{part['tasks']:,}"
        + (f" (of {PLANNED:,} planned, when time ran out)" if part["tasks"] < PLANNED else ""),
        "written_table": written_table(told),
        "kept": kept,
        "hardly": "hardly moves" if kept > KEPT else "moves",
        "mended": apart,
        "tells": "does not tell" if apart.low <= 0 <= apart.high else "tells",
    }


def hellaswag_machine() -> str:
    part = json.loads(REAL.read_text())["hellaswag"]
    return (
        f"- HellaSwag in it: {part['machine']['cpu']}, {part['machine']['processors']} shared cores, "
        f"{part['begun']}, {part['engine']}, {part['cpu_seconds']:,} s of a core. "
        "`python -m benchmarks.real_hellaswag hellaswag_val.txt.bz2`"
    )
