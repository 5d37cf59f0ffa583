"""The first screen of docs/performance.md, from the stored results: how long, how much memory, beside what."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

from gatenorm_stream.report.theme import DARK, LIGHT, PAPER

Rows: TypeAlias = list[dict[str, Any]]
Sections: TypeAlias = dict[str, Any]

WIDTH, LEFT, LINE, BAR, GAP = 720, 230, 24, 14, 34
ROOM = WIDTH - LEFT - 110
SHAPES = ("1B", "13B", "70B", "405B")
BESIDE = {
    "ours": "gatenorm-stream",
    "torch_per_head": "torch, float32",
    "safetensors_numpy": "safe_open + numpy, ten lines",
    "torch_bf16": "torch, bfloat16 (rounds)",
}
BESIDE_ON = "13B BF16, 20 layers"


def found(rows: Rows, **like: str) -> dict[str, Any]:
    """The one row with these values. Raises StopIteration if there is none."""
    return next(row for row in rows if all(row[name] == value for name, value in like.items()))


def table(here: Sections, sixteen: Sections, forward: dict[str, Any]) -> str:
    """Markdown, a question a line, of speed.json (2 and 16 cores) and forward.json."""
    passes, tokens = forward["rows"], forward["tokens"]
    scoring, many, memory = (part["rows"] for part in (here["scoring"], sixteen["scoring"], here["memory"]))
    pruning, giants, start = (here[name]["rows"] for name in ("pruning", "giants", "start"))
    peaks = [row["peak_rss"] / 1e6 for row in [*memory, *giants] if row["what"] != "verify"]
    ours, torch, lines = (
        found(scoring, what=BESIDE_ON, who=who)["seconds"]
        for who in ("ours", "torch_per_head", "safetensors_numpy")
    )
    verified = found(memory, shape="13B", what="verify")
    whole, beside = (found(passes, what="1B BF16, whole", who=who) for who in ("ours", "torch_whole"))
    pruned, copied = (found(pruning, what="here, warm", who=who)["seconds"] for who in ("prune", "cp kept"))
    questions = (
        (
            "How long does scoring take?",
            f"13B {_seconds(found(scoring, what='13B BF16, 40 layers', who='ours'))} s on 2 cores, "
            f"{_seconds(found(many, what='13B BF16, 40 layers', who='ours'))} s on 16; "
            f"70B {_seconds(found(memory, shape='70B', what='score'))} s on 2, the whole command",
            f"{ours / torch:.1f} of torch in float32, {ours / lines:.1f} of ten lines of numpy",
        ),
        (
            "How long does pruning take?",
            f"1B {pruned:.1f} s, 13B {_seconds(found(memory, shape='13B', what='prune'))} s, the whole command",
            f"{pruned / copied:.1f} times `cp` of the bytes that stay, both synced, at 1B",
        ),
        (
            "How much memory?",
            f"{min(peaks):.0f} to {max(peaks):.0f} MB to score or prune, from 1B to 405B",
            f"verifying: {verified['peak_rss'] / 1e6:.0f} MB",
        ),
        (
            "How long does measuring take?",
            f"a pass of {tokens} tokens through 1B: {whole['seconds']:.1f} s, {whole['peak_rss'] / 1e6:.0f} MB",
            f"torch: {beside['seconds']:.1f} s to load and run, {beside['peak_rss'] / 1e6:,.0f} MB",
        ),
        (
            "How long before it starts?",
            f"`--help` {found(start, who='gatenorm-stream --help')['seconds'] * 1000:.0f} ms",
            f"importing typer alone: {start[0]['seconds'] * 1000:.0f} ms",
        ),
    )
    lines_of_it = ["| question | answer | compared with |", "|---|---|---|"]
    return "\n".join(lines_of_it + [f"| {' | '.join(cells)} |" for cells in questions])


def _seconds(row: dict[str, Any]) -> str:
    return f"{row['seconds']:.1f}" if row["seconds"] < 10 else f"{row['seconds']:.0f}"


def picture(here: Sections) -> str:
    """SVG: weights and peak memory of each shape on one axis; then rivals' seconds for the same scores."""
    memory, scoring = here["memory"]["rows"], here["scoring"]["rows"]
    rows = [found(memory, shape=shape, what="score") for shape in SHAPES]
    most = max(row["weights"] for row in rows)
    sizes: list[tuple[str, float, str, str]] = []
    for row in rows:
        for name, key, kind in (("its weights", "weights", "rest"), ("peak memory", "peak_rss", "ours")):
            took = f", {_seconds(row)} s" if kind == "ours" else ""
            sizes.append((f"{row['shape']}, {name}", _logarithm(row[key], most), _bytes(row[key]) + took, kind))
    times = [(who, found(scoring, what=BESIDE_ON, who=who)["seconds"]) for who in BESIDE]
    longest = max(seconds for _, seconds in times)
    rivals = [
        (BESIDE[who], seconds / longest, f"{seconds:.2f} s", "ours" if who == "ours" else "rest")
        for who, seconds in times
    ]
    title = "Memory to score a model does not follow its size"
    parts: list[str] = []
    y = 58
    for heading, bars in ((title, sizes), (f"Seconds to score {BESIDE_ON}", rivals)):
        parts.append(f'<text class="text" x="16" y="{y - 22}" font-size="15" font-weight="bold">{heading}</text>')
        if bars is sizes:
            parts += _decades(y, len(bars) * LINE, most)
        parts += _bars(bars, y)
        y += len(bars) * LINE + GAP + 22
    height = y - 12
    muted = "2 cores, bfloat16. The upper axis is logarithmic: each line is ten times the one before."
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" '
            f'viewBox="0 0 {WIDTH} {height}" font-family="system-ui, sans-serif" font-size="13" role="img">',
            f"<title>{title}; {BESIDE_ON} takes {times[0][1]:.2f} s</title>",
            f"<style>{_rules(LIGHT)} @media screen and (prefers-color-scheme: dark) {{ {_rules(DARK)} }}</style>",
            f'<rect class="{PAPER}" width="{WIDTH}" height="{height}"/>',
            *parts,
            f'<text class="muted" x="16" y="{height - 12}" font-size="12">{muted}</text>',
            "</svg>\n",
        ]
    )


def _bars(bars: Sequence[tuple[str, float, str, str]], top: int) -> Iterator[str]:
    for number, (name, part, value, kind) in enumerate(bars):
        y, wide = top + number * LINE, max(2.0, part * ROOM)
        yield f'<text class="muted" x="{LEFT - 10}" y="{y + BAR - 2}" text-anchor="end">{name}</text>'
        yield f'<rect class="{kind}" x="{LEFT}" y="{y}" width="{wide:.1f}" height="{BAR}" rx="2"/>'
        yield f'<text class="text" x="{LEFT + wide + 8:.1f}" y="{y + BAR - 2}">{value}</text>'


def _decades(top: int, height: int, most: float) -> Iterator[str]:
    for power in range(7, math.floor(math.log10(most)) + 1):
        x = LEFT + _logarithm(10.0**power, most) * ROOM
        yield f'<path class="grid" d="M{x:.1f} {top - 6}v{height}"/>'


def _logarithm(value: float, most: float) -> float:
    """0 stands for 10 MB, 1 for `most`."""
    return math.log(value / 1e7) / math.log(most / 1e7)


def _bytes(count: float) -> str:
    return f"{count / 1e9:,.0f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"


def _rules(colours: dict[str, str]) -> str:
    return (
        f".{PAPER}{{fill:{colours[PAPER]}}}.text{{fill:{colours['text']}}}.muted{{fill:{colours['muted']}}}"
        f".grid{{stroke:{colours['muted']};stroke-opacity:.25}}.ours{{fill:{colours['stays']}}}.rest{{fill:{colours['muted']};fill-opacity:.45}}"
    )
