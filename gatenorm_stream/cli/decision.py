"""What `prune` and `score` have in common: a model is opened, scored, and its scores are shown."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from gatenorm_stream.readings import Reading

if TYPE_CHECKING:
    from gatenorm_stream.families import Model
    from gatenorm_stream.scores import LayerScore
    from gatenorm_stream.selection import Choice

WIDEST_TABLE = 100


@contextmanager
def opened(path: Path) -> Iterator[Model]:
    from gatenorm_stream.checkpoint.open import open_checkpoint
    from gatenorm_stream.families import read_model

    with open_checkpoint(path) as checkpoint:
        yield read_model(checkpoint)


def scored(model: Model, reading: Reading, threads: int | None, quiet: bool) -> tuple[LayerScore, ...]:
    from gatenorm_stream.report.progress import progress_bar
    from gatenorm_stream.scoring import score_model

    with progress_bar(quiet) as progress:
        return score_model(model, reading, threads=threads, progress=progress)


def wrapped(line: str) -> str:
    """Folded to a terminal's width; whole where there is no terminal."""
    if not sys.stdout.isatty():
        return line
    width = shutil.get_terminal_size().columns
    return textwrap.fill(line, width, subsequent_indent="  ", break_long_words=False)


def show_scores(scores: tuple[LayerScore, ...], dropped: tuple[int, ...], choice: Choice) -> None:
    """The table, and a line if the default protection of layer 0 changed what goes."""
    from gatenorm_stream.report.score_table import score_table
    from gatenorm_stream.selection import protection_mattered

    width = min(shutil.get_terminal_size().columns, WIDEST_TABLE)
    encoding = (sys.stdout.encoding or "ascii").lower()
    typer.echo(score_table(scores, dropped, width=width, unicode=encoding.startswith("utf")))
    if protection_mattered(scores, dropped, choice):
        typer.echo("layer 0 scores low but stays: llama.cpp and vLLM can't run without it (--protect-first 0)")
