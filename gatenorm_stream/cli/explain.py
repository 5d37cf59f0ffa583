"""`gatenorm-stream explain DIR`"""

from __future__ import annotations

import textwrap

import typer

from gatenorm_stream.cli.boundary import reported
from gatenorm_stream.cli.fold import folded, has_colour, has_unicode, table_width
from gatenorm_stream.cli.options import DebugOption, Output
from gatenorm_stream.cli.started_as import started_as

EXAMPLES = """
gatenorm-stream explain DIR
"""


@reported
def explain(
    out: Output,
    debug: DebugOption = False,
) -> None:
    """Tell from gatenorm.json what was done, why those layers, and how to repeat it."""
    from gatenorm_stream.report.explanation import repeat, what, why
    from gatenorm_stream.report.score_table import score_table
    from gatenorm_stream.writing.record import output_of, read_record

    out = output_of(out)
    plan, files = read_record(out)
    for name, value in what(plan, files, out, started_as()):
        typer.echo(folded(f"{name:<11}{value}", indent=11))
    typer.echo("\nWhy these layers\n")
    for sentence in why(plan):
        typer.echo(textwrap.fill(sentence, table_width(), break_long_words=False, break_on_hyphens=False))
    if plan.scored:
        typer.echo()
        typer.echo(
            score_table(plan.scores, plan.dropped, width=table_width(), unicode=has_unicode(), colour=has_colour())
        )
    typer.echo("\nAgain\n")
    for purpose, command in repeat(plan, out, started_as()):
        typer.echo(f"# {purpose}\n{command}")
