"""Fills docs/performance.md from the stored results (--check: do they say the same?)."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import answers
from benchmarks.document import between, fill_or_check

ROOT = Path(__file__).parents[1]
DOCUMENT = ROOT / "docs" / "performance.md"
RESULTS = ROOT / "benchmarks" / "results"
SIXTEEN = " on 16 cores"
NAMES = {
    "read": "reading the bytes",
    "ours": "gatenorm-stream",
    "ours_joint": "gatenorm-stream, `joint`",
    "ours_stored": "gatenorm-stream, `stored`",
    "torch_per_head": "torch, float32",
    "torch_bf16": "torch, bfloat16 products",
    "torch_joint": "torch, `joint`, float32",
    "safetensors_numpy": "safe_open + numpy, ten lines",
    "transformers_per_head": "transformers: load, then score",
    "blas_joint": "only the products of `joint` in BLAS",
}
Rows = list[dict[str, Any]]


def compared(rows: Rows) -> str:
    """One line a rival; the ratio is its time over ours."""
    lines = ["| model | who | seconds | over ours | largest difference of a score |", "|---|---|---|---|---|"]
    for what in dict.fromkeys(row["what"] for row in rows):
        group = [row for row in rows if row["what"] == what]
        ours = next(row["seconds"] for row in group if row["who"].startswith("ours"))
        for row in group:
            apart = row["difference"]
            lines.append(
                f"| {what} | {NAMES[row['who']]} | {row['seconds']:.2f} | {row['seconds'] / ours:.2f} | "
                f"{'' if apart is None else f'{apart:.0e}' if apart else '0'} |"
            )
    return "\n".join(lines)


def pruned(rows: Rows) -> str:
    lines = ["| where | what | seconds | over `cp` of the kept bytes |", "|---|---|---|---|"]
    for row in rows:
        base = "gatenorm-stream" if row["what"] == "zeroed" else "cp kept"
        least = next(r["seconds"] for r in rows if r["what"] == row["what"] and r["who"] == base)
        ratio = f"{row['seconds'] / least:.2f}" + (" (over ours)" if base != "cp kept" else "")
        lines.append(f"| {row['what']} | {row['who']} | {row['seconds']:.2f} | {ratio} |")
    return "\n".join(lines)


def memory(rows: Rows) -> str:
    lines = ["| shape | weights | what | seconds | peak memory |", "|---|---|---|---|---|"]
    lines += [
        f"| {r['shape']} | {r['weights'] / 1e9:.0f} GB | {r['what']} | {r['seconds']:.1f} | "
        f"{r['peak_rss'] / 1e6:.0f} MB |"
        for r in rows
    ]
    return "\n".join(lines)


def start(rows: Rows) -> str:
    lines = ["| command | milliseconds | over importing typer |", "|---|---|---|"]
    typer = rows[0]["seconds"]
    lines += [f"| `{r['who']}` | {r['seconds'] * 1000:.0f} | {r['seconds'] / typer:.1f} |" for r in rows]
    return "\n".join(lines)


def growth(rows: Rows) -> str:
    lines = ["| what grows | seconds at each size | exponent |", "|---|---|---|"]
    for row in rows:
        points = ", ".join(f"{x:g}: {t:.2f}" for x, t in row["points"])
        lines.append(f"| {row['what']} | {points} | {row['exponent']:.2f} |")
    return "\n".join(lines)


def passes(rows: Rows) -> str:
    """The least of each group is what a pass can't do without; torch loads the model first."""
    names = {
        "ours": "gatenorm-stream",
        "alone": "widening and BLAS alone",
        "torch_whole": "torch, float32: load, run",
    }
    lines = ["| model | who | seconds | over widening and BLAS alone | peak memory |", "|---|---|---|---|---|"]
    ratios = {row["what"]: row["ratio"] for row in rows if "ratio" in row}
    for row in rows:
        if "ratio" not in row:
            ratio = f"{ratios[row['what']]:.2f}" if row["who"] == "ours" and row["what"] in ratios else ""
            lines.append(
                f"| {row['what']} | {names[row['who']]} | {row['seconds']:.2f} | {ratio} | "
                f"{row['peak_rss'] / 1e6:,.0f} MB |"
            )
    return "\n".join(lines)


def pruning_parts(told: dict[str, Any]) -> str:
    """Medians and ranges; the ratio is the median of the rounds'."""
    names = {
        "before": "prune, the state before",
        "prune": "prune, the whole command",
        "cp": "`cp` of the bytes that stay, synced",
        "cp, not synced": "`cp`, not synced",
        "score": "the start and the scores alone (`score`)",
        "read": "reading the bytes that stay",
        "digest": "reading them and BLAKE3, one thread",
    }
    wall, used = told["seconds"], told["processor seconds"]
    lines = ["| what | seconds | over `cp` | processor seconds | over `cp` |", "|---|---|---|---|---|"]
    for who, name in names.items():
        if who in wall:
            cells = [
                cell for times in (wall, used) for cell in (_spread(times[who]), _over(times[who], times["cp"]))
            ]
            lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def widened(seconds: dict[str, list[float]]) -> str:
    """Medians; the ratio is the median of the rounds'."""
    lines = ["| model | seconds | beside | ratio |", "|---|---|---|---|"]
    for name, times in seconds.items():
        if "," in name or name == "8B BF16":
            continue
        beside = f"{name}, the products alone" if name.startswith("13B") else "8B BF16"
        base = statistics.median(seconds[beside])
        told = beside if beside == "8B BF16" else "the products alone"
        lines.append(
            f"| {name} | {statistics.median(times):.2f} | {base:.2f} ({told}) | {_over(times, seconds[beside])} |"
        )
    return "\n".join(lines)


def _spread(times: list[float]) -> str:
    return f"{statistics.median(times):.2f} ({min(times):.2f} to {max(times):.2f})"


def _over(times: list[float], base: list[float]) -> str:
    return f"{statistics.median(t / b for t, b in zip(times, base, strict=True)):.2f}"


TABLES: dict[str, Callable[[Rows], str]] = {
    "scoring": compared,
    "joint": compared,
    "loading": compared,
    "pruning": pruned,
    "memory": memory,
    "giants": memory,
    "start": start,
    "growth": growth,
}


def filled(text: str, sections: dict[str, Any]) -> str:
    """`text` with the table of each section between its marks, under a line that says what it was measured on."""
    for name, section in sections.items():
        begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
        if begin not in text:
            continue
        table = TABLES[name.removesuffix(SIXTEEN)]
        machine = section["machine"]
        on = (
            f"{machine['processors']} cores of {machine['cpu']}, Python {machine['python']}, numpy "
            f"{machine['numpy']} (OpenBLAS kernel {machine['blas']}); load of the machine when it began: "
            f"{section['load']:.1f}."
        )
        text = between(text, begin, end, f"{on}\n\n{table(section['rows'])}\n")
    return text


def with_answers(text: str, here: dict[str, Any], sixteen: dict[str, Any], forward: dict[str, Any]) -> str:
    table = f"{answers.table(here, sixteen, forward)}\n"
    return between(text, "<!-- answers -->\n", "<!-- end of answers -->", table)


def with_forward(text: str, told: dict[str, Any]) -> str:
    machine = told["machine"]
    on = (
        f"{told['threads']} cores of {machine['cpu']}, Python {machine['python']}, numpy {machine['numpy']}; "
        f"{told['tokens']} tokens; load of the machine when it ended: {told['load']:.1f}."
    )
    table = f"{on}\n\n{passes(told['rows'])}\n"
    return between(text, "<!-- forward -->\n", "<!-- end of forward -->", table)


def with_pruning_parts(text: str, told: dict[str, Any]) -> str:
    machine, rounds, (begun, ended) = told["machine"], len(told["seconds"]["cp"]), told["load"]
    on = (
        f"{machine['processors']} cores of {machine['cpu']}, Python {machine['python']}; {told['model']}, "
        f"{told['bytes'] / 1e9:.1f} GB stay; {rounds} rounds in turns, medians (ranges); load of the machine "
        f"{begun:.1f} before, {ended:.1f} after."
    )
    table = f"{on}\n\n{pruning_parts(told)}\n"
    return between(text, "<!-- pruning parts -->\n", "<!-- end of pruning parts -->", table)


def with_widening(text: str, told: dict[str, Any]) -> str:
    rounds = len(next(iter(told["seconds"].values())))
    on = (
        f"{told['threads']} cores of {told['machine']['cpu']}; {told['layers']} layers; medians of {rounds} rounds "
        f"in turns; load of the machine when it began: {told['load']:.1f}."
    )
    table = f"{on}\n\n{widened(told['seconds'])}\n"
    return between(text, "<!-- widening -->\n", "<!-- end of widening -->", table)


def main() -> None:
    here, sixteen = (json.loads((RESULTS / f"speed{n}.json").read_text("utf-8"))["sections"] for n in ("", "_16"))
    sections = here | {name + SIXTEEN: section for name, section in sixteen.items()}
    forward, parts, wide = (
        json.loads((RESULTS / f"{n}.json").read_text("utf-8")) for n in ("forward", "pruning", "widening")
    )

    def written(text: str) -> str:
        text = with_pruning_parts(with_forward(filled(text, sections), forward), parts)
        text = with_widening(text, wide)
        return with_answers(text, here, sixteen, forward)

    fill_or_check(__doc__, DOCUMENT, written)


if __name__ == "__main__":
    main()
