"""The charts of docs/performance.md, from the stored results."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks import answers
from benchmarks.plot import chart

RESULTS = Path(__file__).parent / "results"


def draw(sections: dict[str, list[dict[str, Any]]]) -> None:
    if rows := sections.get("memory", []) + sections.get("giants", []):
        lines = {
            what: [(r["weights"] / 1e9, r["peak_rss"] / 1e6) for r in rows if r["what"] == what]
            for what in ("score", "prune", "verify")
        }
        lines = {name: points for name, points in lines.items() if points}
        text = chart("Peak resident memory", "weights, GB", "MB", lines, log_y=False)
        (RESULTS / "memory.svg").write_text(text)
    if rows := sections.get("growth"):
        lines = {r["what"]: [(x / r["points"][0][0], y) for x, y in r["points"]] for r in rows}
        text = chart("Time to score", "times the smallest size", "seconds", lines)
        (RESULTS / "growth.svg").write_text(text)


def draw_growth_of_the_pass(told: dict[str, Any]) -> None:
    lines = {r["what"]: [(x / r["points"][0][0], y) for x, y in r["processor"]] for r in told["rows"]}
    text = chart("Time of a measuring pass", "times the smallest number", "seconds of processor time", lines)
    (RESULTS / "forward_growth.svg").write_text(text)


if __name__ == "__main__":
    stored = json.loads((RESULTS / "speed.json").read_text())["sections"]
    draw({name: section["rows"] for name, section in stored.items()})
    (RESULTS / "answers.svg").write_text(answers.picture(stored))
    draw_growth_of_the_pass(json.loads((RESULTS / "forward_growth.json").read_text()))
