"""`gatenorm-stream verify DIR`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gatenorm_stream.cli.boundary import reported
from gatenorm_stream.cli.options import DebugOption, QuietOption


@reported
def verify(
    out: Annotated[Path, typer.Argument(metavar="DIR", help="An output of gatenorm-stream.")],
    against: Annotated[
        Path | None, typer.Option(help="The source model; every kept tensor is compared with it.")
    ] = None,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Check every byte of an output, and with --against every kept tensor."""
    from gatenorm_stream.report.progress import progress_bar
    from gatenorm_stream.report.quantities import si
    from gatenorm_stream.verification import verify_output

    with progress_bar(quiet) as progress:
        verified = verify_output(out, against, progress=progress)
    if not quiet:
        compared = f", each the same as in {against}" if against else ""
        typer.echo(
            f"verified {out}: {verified.files} files, {si(verified.bytes, 'B')}, "
            f"{verified.tensors} tensors{compared}"
        )
