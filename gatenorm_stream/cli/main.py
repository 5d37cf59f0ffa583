"""The entry point."""

from __future__ import annotations

import os
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from gatenorm_stream.cli.families import families
from gatenorm_stream.cli.prune import prune
from gatenorm_stream.cli.score import score
from gatenorm_stream.cli.verify import verify

BLAS_THREADS = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")


class _PruneByDefault(TyperGroup):
    """`gatenorm-stream MODEL ...` is `gatenorm-stream prune MODEL ...`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        own = {option for param in self.get_params(ctx) for option in param.opts}
        if args and args[0] not in self.commands and args[0] not in own:
            args = ["prune", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=_PruneByDefault,
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    help="Remove the attention sublayers that matter least from an LLM checkpoint: no data, no GPU, no loading of "
    "the model.\n\n`gatenorm-stream MODEL --out DIR` prunes; `gatenorm-stream score MODEL` only shows the scores.",
)
app.command()(prune)
app.command()(score)
app.command()(verify)
app.command()(families)


def _print_version(wanted: bool) -> None:
    if wanted:
        from gatenorm_stream.version import VERSION

        typer.echo(f"gatenorm-stream {VERSION}")
        raise typer.Exit


@app.callback()
def _group(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Scoring runs its own threads, so BLAS gets one each, unless the user has set another number."""
    for name in BLAS_THREADS:
        os.environ.setdefault(name, "1")
    app()
