"""`gatenorm-stream families`"""

from __future__ import annotations

from typing import Annotated

import typer

from gatenorm_stream.cli.boundary import reported
from gatenorm_stream.cli.fold import table_width
from gatenorm_stream.cli.options import DebugOption
from gatenorm_stream.cli.say import say, say_json

EXAMPLES = """
gatenorm-stream families
gatenorm-stream families --json
"""


@reported
def families(
    json_: Annotated[bool, typer.Option("--json", help="Print JSON instead of the table.")] = False,
    debug: DebugOption = False,
) -> None:
    """List the architectures that are known, and the formats that can express them."""
    from gatenorm_stream.families.table import FAMILIES
    from gatenorm_stream.families.wrappers import WRAPPERS
    from gatenorm_stream.report.family_table import family_json, family_table, wrapper_json, wrapper_table

    wrappers = WRAPPERS.values()
    if json_:
        known = [*map(family_json, FAMILIES), *map(wrapper_json, wrappers)]
        say_json(known)
        return
    say(f"{family_table(FAMILIES, table_width())}\n\n{wrapper_table(wrappers, table_width())}")
