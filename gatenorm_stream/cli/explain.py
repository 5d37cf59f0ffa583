"""`gatenorm-stream explain DIR`"""

from __future__ import annotations

from gatenorm_stream.cli.boundary import reported
from gatenorm_stream.cli.fold import folded, has_colour, has_unicode, table_width
from gatenorm_stream.cli.options import DebugOption, Output
from gatenorm_stream.cli.say import say, say_in_colour
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
    from gatenorm_stream.report.explanation import commands, what, why
    from gatenorm_stream.report.score_table import score_table
    from gatenorm_stream.writing.record import output_of, read_record

    out = output_of(out)
    plan, files = read_record(out)
    for name, value in what(plan, files):
        say(folded(f"{name:<11}{value}", indent=11))
    say("\nWhy these layers\n")
    for sentence in why(plan):
        say(folded(sentence, indent=0))
    if plan.scored:
        say()
        say_in_colour(
            score_table(plan.scores, plan.dropped, width=table_width(), unicode=has_unicode(), colour=has_colour())
        )
    say("\nCommands\n")
    for purpose, command in commands(plan, out, started_as()):
        say(f"# {purpose}\n{command}")
