"""`gatenorm-stream explain DIR`"""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Annotated

import typer

from gatenorm_stream.cli.boundary import reported
from gatenorm_stream.cli.fold import folded, has_unicode, table_width
from gatenorm_stream.cli.options import DebugOption
from gatenorm_stream.cli.say import say

EXAMPLES = """
gatenorm-stream explain DIR
"""


@reported
def explain(
    out: Annotated[Path, typer.Argument(metavar="DIR", help="An output of gatenorm-stream.")],
    debug: DebugOption = False,
) -> None:
    """Tell from gatenorm.json what was done, why those layers, and how to repeat it."""
    from gatenorm_stream.report.explanation import repeat, what, why
    from gatenorm_stream.report.score_table import score_table
    from gatenorm_stream.writing.record import read_record

    plan, files = read_record(out)
    for name, value in what(plan, files, out):
        say(folded(f"{name:<11}{value}", indent=11))
    say("\nWhy these layers\n")
    for sentence in why(plan):
        say(textwrap.fill(sentence, table_width(), break_long_words=False, break_on_hyphens=False))
    if plan.scored:
        say()
        say(score_table(plan.scores, plan.dropped, width=table_width(), unicode=has_unicode()))
    say("\nAgain\n")
    for purpose, command in repeat(plan, out):
        say(f"# {purpose}\n{command}")
