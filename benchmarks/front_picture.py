"""The picture of README: measure, prune and ask, as the commands printed it of a public model.

python -m benchmarks.front_picture --run    runs them (the packages of `nox -s engines`; a minute or two)
python -m benchmarks.front_picture          draws what they printed then, from benchmarks/results/front.json
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tempfile
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from benchmarks.machine import COMMAND
from benchmarks.real_model import WHEEL, fetched
from gatenorm_stream.report.theme import DARK, LIGHT, PAPER

RESULTS = Path(__file__).parent / "results" / "front.json"
PICTURE = Path(__file__).parents[1] / "docs" / "pictures" / "front.svg"
MODEL, OUT = "SmolLM2.gguf", "small.gguf"
COMMANDS = (
    f"gatenorm-stream measure {MODEL}",
    f"gatenorm-stream {MODEL} --out {OUT} --by influence --compensate",
)
BEGINNINGS = ("The capital of France is", "The sun rises in the", "The opposite of hot is")
GOES_ON = 16

SHOWN = (
    (f"{MODEL}: loss", "on "),
    ("rise of the loss", "at random:"),
    ("attention removed", "format "),
    ("      ", "KV cache"),
)
"""The first and the last line, by how they begin, of each piece that is shown; the rest is cut."""
CUT = "…"

COLUMNS = 78
FONT, CELL, LINE, EDGE = 13, 7.8, 18, 20
"""Pixels: of letters, the width of one, the height of a line, the margin."""


def run() -> dict[str, Any]:
    """What the commands print of the public model, and how both files go on in llama.cpp: greedy."""
    from tests.engines.llama_cpp import LlamaCpp

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        fetched(folder).rename(folder / MODEL)
        printed = {}
        for typed in COMMANDS:
            words = [COMMAND, *typed.split()[1:]]
            environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
            done = subprocess.run(words, cwd=folder, env=environment, check=True, stdout=subprocess.PIPE, text=True)
            printed[typed] = done.stdout
        models = {file: LlamaCpp(folder / file, exact=False) for file in (MODEL, OUT)}
        asked = {begin: {f: m.goes_on(begin, GOES_ON) for f, m in models.items()} for begin in BEGINNINGS}
    return {"model": WHEEL, "printed": printed, "asked": asked}


def pieces(lines: Sequence[str]) -> Iterator[str]:
    """The lines that SHOWN names, with one CUT wherever some are left out."""
    inside, ends, left_out = False, "", False
    for line in lines:
        if not inside:
            piece = next((piece for piece in SHOWN if line.startswith(piece[0])), None)
            if piece is None:
                left_out = left_out or bool(line.strip())
                continue
            if left_out:
                yield CUT
            inside, ends, left_out = True, piece[1], False
        yield line
        inside = not line.startswith(ends)
    if left_out:
        yield CUT


def lines(result: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """(class, text) of each line: `typed`, `text` or `muted`."""
    for typed, printed in result["printed"].items():
        yield "typed", f"$ {typed}"
        for line in pieces(printed.splitlines()):
            for part in textwrap.wrap(line, COLUMNS, drop_whitespace=False) or [""]:
                yield "muted" if line == CUT else "text", part
        yield "text", ""
    yield "typed", "# asked to go on, in llama.cpp"
    for beginning, answers in result["asked"].items():
        yield "text", beginning
        for file, answer in answers.items():
            answer = " ".join(answer.split())[: COLUMNS - 18]
            yield "muted", f"  {file:14}{CUT}{answer}{CUT}"


def drawing(result: dict[str, Any]) -> str:
    shown = list(lines(result))
    width, height = round(2 * EDGE + COLUMNS * CELL), 2 * EDGE + len(shown) * LINE
    title = f"Terminal: {' and '.join(result['printed'])}, then both files asked in llama.cpp"
    fonts = "ui-monospace, Menlo, Consolas, 'DejaVu Sans Mono', monospace"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" font-family="{fonts}" font-size="{FONT}" role="img">',
        f"<title>{escape(title)}</title>",
        f"<style>{_rules(LIGHT)} @media (prefers-color-scheme: dark) {{ {_rules(DARK)} }}</style>",
        f'<rect class="{PAPER}" x="0.5" y="0.5" width="{width - 1}" height="{height - 1}" rx="8"/>',
        *_texts(shown),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _texts(shown: Iterable[tuple[str, str]]) -> Iterator[str]:
    """Each as wide as its letters would be in cells, whatever the font that is there."""
    for number, (kind, text) in enumerate(shown):
        if text:
            y = EDGE + number * LINE + FONT
            letters = escape(text).replace(" ", "\u00a0")
            wide = f'textLength="{len(text) * CELL:.1f}"'
            yield f'<text class="{kind}" x="{EDGE}" y="{y}" {wide}>{letters}</text>'


def _rules(colours: dict[str, str]) -> str:
    return (
        f".{PAPER} {{ fill: {colours[PAPER]}; stroke: {colours['muted']}; stroke-opacity: 0.4 }} "
        f".text {{ fill: {colours['text']} }} .muted {{ fill: {colours['muted']} }} "
        f".typed {{ fill: {colours['stays']}; font-weight: bold }}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--run", action="store_true", help="run the commands anew")
    if parser.parse_args().run:
        RESULTS.write_text(json.dumps(run(), indent=1, ensure_ascii=False) + "\n", "utf-8")
    PICTURE.write_text(drawing(json.loads(RESULTS.read_text("utf-8"))), "utf-8")


if __name__ == "__main__":
    main()
