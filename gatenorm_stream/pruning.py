"""The one pipeline, from a source to an output: what the command and the Python functions both do.

Everything that can go wrong before the first byte is written goes wrong in `prepare`; `carry_out` only writes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from gatenorm_stream.families.model import Model
from gatenorm_stream.families.open import open_model
from gatenorm_stream.folder import Folder
from gatenorm_stream.planning.decide import Decision
from gatenorm_stream.planning.lay_out import lay_out
from gatenorm_stream.planning.layout import Layout
from gatenorm_stream.report.model_card import model_card
from gatenorm_stream.sources.hub.retry import Note
from gatenorm_stream.sources.source import Source
from gatenorm_stream.work import Progress
from gatenorm_stream.writing.destination import check_destination, check_files, check_space, check_space_to_run
from gatenorm_stream.writing.partial import SPOOL, open_partial
from gatenorm_stream.writing.recovery import recover
from gatenorm_stream.writing.write import write_output

Decide: TypeAlias = Callable[[Model], Decision]
"""By scores that are computed now, or by a plan that was saved."""


@dataclass(frozen=True)
class Prepared:
    """What will be done. `partial` is where it will be written, if it had to be opened already."""

    model: Model
    decision: Decision
    layout: Layout
    partial: Folder | None


@contextmanager
def prepare(
    source: Source,
    decide: Decide,
    out: Path | None = None,
    *,
    runs: bool = False,
    dry_run: bool = False,
    force: bool = False,
    restart: bool = False,
) -> Iterator[Prepared]:
    """Opens the model in `source`, decides, and checks that `out`, if there is one, can be written.

    What is fetched from a remote source in order to decide is kept in the `.partial` of `out`, where `carry_out`
    finds it again; if deciding `runs` the model, all of it is in the Hub cache instead. With `dry_run`, no
    `.partial` is made. Raises OutputError, and the errors of reading, deciding and laying out.
    """
    with ExitStack() as stack:
        model = stack.enter_context(open_model(source))
        destination = None if dry_run else out
        if destination:
            recover(destination)
        if out:
            check_destination(source, out, force=force)
        partial = None
        if destination and source.remote:
            partial = stack.enter_context(open_partial(destination, restart=restart))
            source.keep_in(partial.folder(SPOOL, make=True))
            if runs:
                check_space_to_run(model.checkpoint, destination)
        decision = decide(model)
        layout = lay_out(decision.plan, model)
        if out:
            check_files(layout)
            check_space(layout, out)
        yield Prepared(model, decision, layout, partial)


def carry_out(
    prepared: Prepared,
    out: Path,
    *,
    force: bool = False,
    restart: bool = False,
    threads: int | None = None,
    progress: Progress | None = None,
    note: Note = lambda line: None,
) -> None:
    """Writes what was prepared for `out`, which appears whole or not at all. Raises as `write_output` does."""
    model, plan, layout = prepared.model, prepared.decision.plan, prepared.layout
    opened = nullcontext(prepared.partial) if prepared.partial else open_partial(out, restart=restart)
    with opened as partial:
        write_output(
            plan,
            layout,
            model,
            out,
            partial,
            card=model_card(plan, model, layout, prepared.decision.form, note),
            force=force,
            threads=threads,
            progress=progress,
            note=note,
        )
