"""`gatenorm-stream verify DIR`"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated

import typer

from gatenorm_stream.cli.boundary import reported
from gatenorm_stream.cli.fold import folded, with_command
from gatenorm_stream.cli.options import ConnectionsOption, DebugOption, Output, QuietAlone, RevisionOption
from gatenorm_stream.cli.say import say
from gatenorm_stream.cli.started_as import next_command

if TYPE_CHECKING:
    from gatenorm_stream.planning.plan import Plan

EXAMPLES = """
gatenorm-stream verify DIR
gatenorm-stream verify DIR --against MODEL
"""


@reported
def verify(
    out: Output,
    against: Annotated[
        str | None, typer.Option(metavar="MODEL", help="The source model; every kept tensor is compared with it.")
    ] = None,
    revision: RevisionOption = None,
    connections: ConnectionsOption = None,
    quiet: QuietAlone = False,
    debug: DebugOption = False,
) -> None:
    """Check every byte of an output, and with --against every kept tensor."""
    from gatenorm_stream.report.progress import progress_meter
    from gatenorm_stream.report.quantities import si
    from gatenorm_stream.sources.open import open_source
    from gatenorm_stream.verifying.verify import verify as verify_output
    from gatenorm_stream.writing.record import output_of

    out = output_of(out)
    with progress_meter(quiet) as meter:
        source = (
            open_source(against, revision=revision, connections=connections, note=meter.note) if against else None
        )
        verified = verify_output(out, source, progress=meter.report)
    if not quiet:
        compared = ""
        if against:
            each = f"{verified.computed} as the plan says, the others" if verified.computed else "each"
            compared = f", {each} the same as in {against}"
        files = "1 file" if verified.files == 1 else f"{verified.files} files"
        counted = f"{files}, {si(verified.bytes, 'B')}, {verified.tensors} tensors"
        say(folded(f"verified {out}: {counted}{compared}"))
        measure = next_command("measure", str(out), "--against", against or _source(verified.plan))
        say(with_command("its bytes are checked, its quality is not:", measure))


def _source(plan: Plan) -> str:
    """The source as the record names it, if it can be read from here."""
    return plan.model if plan.revision or os.path.exists(plan.source) else "MODEL"
