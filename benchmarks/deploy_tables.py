"""Fills the tables of docs/deploy.md from benchmarks/results/deploy.json (--check: are they what it says?)."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path
from typing import Any

from benchmarks.document import between, fill_or_check

ROOT = Path(__file__).parents[1]
DOCUMENT = ROOT / "docs" / "deploy.md"
RESULTS = ROOT / "benchmarks" / "results" / "deploy.json"
IDLE = 0.3  # processors that others may keep busy while times are taken, if these are to be shown
Result = dict[str, Any]


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def change(before: float, after: float, unit: str = "", places: int = 0) -> str:
    share = 100 * (after / before - 1)
    return f"{before:.{places}f} → {after:.{places}f} {unit}({share:+.1f} %)".replace("-", "−")


def was_idle(result: Result) -> bool:
    return all(load < IDLE for load in result["load"])


def speed(tokens: int, seconds: list[list[float]]) -> str:
    """Tokens a second, whole and pruned, each in its fastest sample."""
    whole, pruned = (tokens / min(samples) for samples in seconds)
    return change(whole, pruned, places=0 if whole >= 100 else 1)


def gains(result: Result) -> str:
    head = ["target", "file", "KV cache, a token"]
    if idle := was_idle(result):
        head += [f"tokens/s of a prompt of {result['prompt']}", "tokens/s after it"]
    rows = []
    for target, told in result["gains"]["targets"].items():
        cache = change(*(x / 1e3 for x in told["cache"]), "kB ") if told["cache"][0] else "not told"
        row = [target, change(*(x / 1e6 for x in told["size"]), "MB "), cache]
        if idle:
            row += [speed(result["prompt"], told["prompt"]), speed(1, told["token"])]
        rows.append(row)
    return table(head, rows)


def quantised(result: Result) -> str:
    rows = [
        [name, change(*(x / 1e6 for x in told["size"]), "MB ", 2), *(f"{loss:.3f}" for loss in told["loss"])]
        for name, told in result["losses"]["files"].items()
    ]
    head = ["fixture model", "file, whole → pruned", "loss, whole", "loss, pruned"]
    return table(head, rows).replace("with matrix", "Q4_K_M with matrix")


def machine(result: Result) -> str:
    told, shape = result["machine"], result["gains"]["shape"]
    layers = ", ".join(map(str, result["gains"]["pruned_layers"]))
    versions = ", ".join(f"{name} {number}" for name, number in result["versions"].items())
    times = (
        f"Speed: one thread, the fastest of {result['rounds']} rounds in which whole and pruned took turns."
        if was_idle(result)
        else "Speed is not shown: the machine was busy with other work."
    )
    text = (
        f"{told['processors']} cores of an {told['cpu']}; {versions}. {times} "
        f"A random Llama of {shape['num_hidden_layers']} layers, hidden size {shape['hidden_size']}, attention "
        f"removed from layers {layers}. Loss in nats per token over {result['losses']['windows']} windows of 256 "
        "tokens, second halves."
    )
    return textwrap.fill(text, 116, break_on_hyphens=False)


def fill(document: str, result: Result) -> str:
    """The document with its tables written anew."""
    for name, render in {"gains": gains, "quantised": quantised, "machine": machine}.items():
        document = between(document, f"<!-- table: {name} -->\n", "<!-- end -->", f"{render(result)}\n")
    return document


def main() -> None:
    result = json.loads(RESULTS.read_text("utf-8"))
    fill_or_check(__doc__, DOCUMENT, lambda text: fill(text, result))


if __name__ == "__main__":
    main()
