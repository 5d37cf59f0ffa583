"""`gatenorm-stream push DIR org/name`"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gatenorm_stream.cli.boundary import reported
from gatenorm_stream.cli.fold import folded
from gatenorm_stream.cli.options import DebugOption, Output, QuietAlone
from gatenorm_stream.cli.say import say
from gatenorm_stream.cli.started_as import next_command

if TYPE_CHECKING:
    from gatenorm_stream.planning.layout import Layout
    from gatenorm_stream.writing.upload import Repository

EXAMPLES = """
gatenorm-stream push DIR org/name    # a private repository
"""


@reported
def push(
    out: Output,
    repository: Annotated[str, typer.Argument(metavar="REPO", help="org/name; made if it is not there.")],
    quiet: QuietAlone = False,
    debug: DebugOption = False,
) -> None:
    """Upload an output to a private repository on the Hub; after a failure the same command resumes."""
    from gatenorm_stream.report.progress import progress_meter
    from gatenorm_stream.verifying.verify import verify
    from gatenorm_stream.writing.record import kind_at, output_of
    from gatenorm_stream.writing.upload import prepare

    out = output_of(out)
    with progress_meter(quiet) as meter:
        verify(out, progress=meter.report)
    upload(out, prepare(repository, kind_at(out)), quiet=quiet)


def repository_for(name: str, layout: Layout) -> Repository:
    """Made before anything is written, so that a bad name or token is reported first."""
    from gatenorm_stream.writing.upload import prepare

    return prepare(name, layout.kind)


def upload(out: Path, repository: Repository, *, quiet: bool) -> None:
    """Sends the files on record. Bars are shown on a terminal only; huggingface_hub's warnings, which hold signed
    addresses, nowhere.
    """
    import logging

    from huggingface_hub.utils.tqdm import disable_progress_bars

    from gatenorm_stream.errors import HubError
    from gatenorm_stream.names import is_hidden, looks_secret
    from gatenorm_stream.writing.record import kind_at, read_record, record_path
    from gatenorm_stream.writing.upload import output_files
    from gatenorm_stream.writing.upload import push as push_files

    if quiet or not sys.stderr.isatty():
        disable_progress_bars()
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    plan, files = read_record(out)
    names = [*output_files(out, files), record_path(out, kind_at(out)).name]
    if kept := sorted(name for name in names if is_hidden(name) or looks_secret(name)):
        raise HubError(f"{out} holds {kept[0]}, which never goes up; make the output anew without it")
    if not quiet:
        say(folded(f"going up to {repository.name} (private): {', '.join(sorted(names))}"))
    try:
        page = push_files(out, plan, files, repository)
    except HubError as error:
        again = next_command("push", str(out), repository.name)
        raise HubError(f"{error} ({out} is whole; `{again}` resumes)") from error
    if not quiet:
        say(f"uploaded {out} to {page} (private)")
