"""What `prune` and `score` have in common: how scores are shown."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from gatenorm_stream.cli.fold import has_colour, has_unicode, table_width

if TYPE_CHECKING:
    from gatenorm_stream.scoring.scores import LayerScore
    from gatenorm_stream.scoring.selection import Choice


def show_scores(
    scores: tuple[LayerScore, ...], dropped: tuple[int, ...], choice: Choice | None, *, influence: bool
) -> None:
    """The table, and a line if the default protection of layer 0 changed what goes.

    `choice` is what `dropped` came from; None where that is not known. `influence` says what the scores are.
    """
    from gatenorm_stream.report.score_table import score_table
    from gatenorm_stream.scoring.selection import protection_mattered

    what = "influence" if influence else "score"
    typer.echo(
        score_table(scores, dropped, what=what, width=table_width(), unicode=has_unicode(), colour=has_colour())
    )
    if choice and protection_mattered(scores, dropped, choice):
        typer.echo("layer 0 scores low but stays: llama.cpp and vLLM can't run without it (--protect-first 0)")
