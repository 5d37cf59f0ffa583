"""The entry point."""

from __future__ import annotations

import os
import sys
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from gatenorm_stream.cli import compare, explain, families, measure, prune, push, score, verify
from gatenorm_stream.cli.fold import folded
from gatenorm_stream.cli.help import Command, command_help
from gatenorm_stream.cli.say import say
from gatenorm_stream.cli.streams import flush_output, give_up_output, open_closed_streams
from gatenorm_stream.cli.usage import check_command, options_of, usage_line, with_home

BLAS_THREADS = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")

OPEN_FILES = 1 << 14

HELP_OPTIONS = {"help_option_names": ["-h", "--help"]}

EXAMPLES = """
gatenorm-stream measure MODEL                 # what each choice would cost
gatenorm-stream MODEL --dry-run               # what would go, and what it saves
gatenorm-stream MODEL --out DIR               # prune
gatenorm-stream verify DIR --against MODEL    # check every byte
"""


class _PruneByDefault(TyperGroup):
    """`gatenorm-stream MODEL ...` is `gatenorm-stream prune MODEL ...`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args and not ctx.resilient_parsing:
            typer.echo(self.get_help(ctx))
            ctx.exit(2)
        if args and args[0] not in self.commands and args[0] not in options_of(self, ctx):
            if not args[0].startswith("-"):
                check_command(args, [*self.commands, "--help", "--version"], _is_there)
            args = ["prune", *args]
        return super().parse_args(ctx, args)

    def get_help(self, ctx: Any) -> str:
        rows = [(name, _first_sentence(command.help or "")) for name, command in self.commands.items()]
        return command_help(self, ctx, rows)

    def shell_complete(self, ctx: Any, incomplete: str) -> list[Any]:
        """The options of `prune` are offered too, since it is the default."""
        found = super().shell_complete(ctx, incomplete)
        return found + self.commands["prune"].shell_complete(ctx, incomplete) if incomplete[:1] == "-" else found


app = typer.Typer(
    cls=_PruneByDefault,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    epilog=EXAMPLES,
    help="Remove attention sublayers from an LLM checkpoint, and measure what that costs: no GPU, no loading of "
    "the model.\n\nMODEL is a directory of safetensors, a GGUF file, or org/name[@revision] on the Hugging "
    "Face Hub.",
    context_settings=HELP_OPTIONS,
)
for command, examples in (
    (prune.prune, prune.EXAMPLES),
    (score.score, score.EXAMPLES),
    (measure.measure, measure.EXAMPLES),
    (compare.compare, compare.EXAMPLES),
    (verify.verify, verify.EXAMPLES),
    (explain.explain, explain.EXAMPLES),
    (push.push, push.EXAMPLES),
    (families.families, families.EXAMPLES),
):
    app.command(cls=Command, epilog=examples, context_settings=HELP_OPTIONS)(command)


def _first_sentence(text: str) -> str:
    return text.partition("\n\n")[0].replace("\n", " ").rstrip(".")


def _print_version(wanted: bool) -> None:
    if wanted:
        from gatenorm_stream.version import VERSION

        say(f"gatenorm-stream {VERSION}")
        raise typer.Exit


@app.callback()
def _group(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


def _is_there(name: str) -> bool:
    """False for what can be no path."""
    with suppress(OSError, ValueError):
        return Path(name).exists()
    return False


def allow_open_files() -> None:
    """As many as the user may have open: all shards of a model are, and 256 are the usual limit on some systems."""
    with suppress(ImportError, OSError, ValueError):
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        most = OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, OPEN_FILES)
        if soft != resource.RLIM_INFINITY and soft < most:
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def main() -> None:
    """Runs the command and exits: 0 done, 1 an error, 2 a command line that can't be read, 130 interrupted."""
    for name in BLAS_THREADS:
        os.environ.setdefault(name, "1")  # scoring runs threads of its own
    open_closed_streams()
    allow_open_files()
    try:
        code = app(with_home(sys.argv[1:]), standalone_mode=False) or 0
        with suppress(OSError) if code else nullcontext():
            flush_output()
    except typer.Abort:
        sys.exit(130)
    except BrokenPipeError:
        give_up_output()
        sys.exit(141)
    except OSError as error:
        give_up_output()
        say(f"error: standard output: {error.strerror}", err=True)
        sys.exit(1)
    except Exception as error:
        if not hasattr(error, "format_message"):  # which all of typer's own have
            raise
        say(folded(usage_line(error), sys.stderr), err=True)
        sys.exit(2)
    sys.exit(code)
