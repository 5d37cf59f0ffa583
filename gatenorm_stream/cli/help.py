"""Help as plain text: options by group, then examples, folded to the terminal.

Drawn here, since importing rich for it takes longer than all the rest of the command's start.
"""

from __future__ import annotations

import inspect
import shutil
import textwrap
from collections.abc import Iterator
from typing import Any

import typer
from typer.core import TyperCommand

from gatenorm_stream.cli.fold import has_colour

WIDEST = 96
NARROW = 60
"""Below this, every text is on the line after its name."""

Row = tuple[str, str]
Section = tuple[str, list[Row]]


class Command(TyperCommand):
    """A command whose epilog is its examples, one a line."""

    def get_help(self, ctx: Any) -> str:
        return command_help(self, ctx)


def command_help(command: Any, ctx: typer.Context, commands: list[Row] | None = None) -> str:
    """`commands` are the names of a group's commands, each with what it does."""
    sections = [("Commands", commands or []), *sections_of(command, ctx)]
    words = [ctx.command_path, "COMMAND" if commands else "", *_arguments(command, ctx), "[OPTIONS]"]
    width = max(min(shutil.get_terminal_size().columns, WIDEST), 30)
    return "\n".join(
        _fold(" ".join(filter(None, words)), command.help or "", sections, command.epilog or "", width)
    )


def _arguments(command: Any, ctx: typer.Context) -> list[str]:
    """Their names, in brackets where they may be left out."""
    found = [p for p in command.get_params(ctx) if p.param_type_name == "argument"]
    return [_name(p) if p.required else f"[{_name(p)}]" for p in found]


def sections_of(command: Any, ctx: typer.Context) -> list[Section]:
    """The arguments, then each group of options."""
    params = [p for p in command.get_params(ctx) if not getattr(p, "hidden", False)]
    arguments = [(_name(p), p.help or "") for p in params if p.param_type_name == "argument"]
    return [("Arguments", arguments), *_option_groups([p for p in params if p.param_type_name == "option"])]


def _fold(usage: str, text: str, sections: list[Section], examples: str, width: int) -> Iterator[str]:
    yield from textwrap.wrap(f"Usage: {usage}", width, subsequent_indent="    ")
    for paragraph in inspect.cleandoc(text).split("\n\n"):
        yield ""
        yield from textwrap.wrap(paragraph, width, break_on_hyphens=False)
    indent = 6 if width < NARROW else 4 + max(len(name) for _, rows in sections for name, _ in rows)
    for heading, rows in sections:
        if rows:
            yield ""
            yield _styled(heading, "1")
            for name, what in rows:
                yield from _row(name, what, indent, width)
    if examples:
        yield ""
        yield _styled("Examples", "1")
        yield from _examples(inspect.cleandoc(examples).splitlines(), width - 2)


def _row(name: str, what: str, indent: int, width: int) -> Iterator[str]:
    texts = textwrap.wrap(what, width - indent, break_on_hyphens=False)
    if width >= NARROW and texts:
        yield f"  {_styled(name, '36')}{' ' * (indent - 2 - len(name))}{texts.pop(0)}"
    else:
        yield f"  {_styled(name, '36')}"
    for text in texts:
        yield " " * indent + text


def _examples(lines: list[str], width: int) -> Iterator[str]:
    """As written, in columns; where that is too wide, each comment on a line before its command."""
    if all(len(line) <= width for line in lines):
        yield from (f"  {line}" for line in lines)
        return
    for line in lines:
        command, _, comment = line.partition("  #")
        for text, more in ((comment and f"# {comment.strip()}", "# "), (command.rstrip(), "    ")):
            yield from (f"  {part}" for part in textwrap.wrap(text, width, subsequent_indent=more))


def _option_groups(options: list[Any]) -> list[Section]:
    """In the order in which they first appear, those of no group last."""
    groups: dict[str, list[Row]] = {}
    for option in options:
        groups.setdefault(getattr(option, "rich_help_panel", None) or "", []).append((_name(option), _text(option)))
    rest = groups.pop("", [])
    return [*groups.items(), ("Options", rest)]


def _name(param: Any) -> str:
    if param.param_type_name == "argument":
        return str(param.metavar or param.name.upper())
    names = ", ".join(sorted(param.opts, key=len))
    if param.secondary_opts:
        names = names.replace("--", "--[no-]")
    return names if param.is_flag or param.count else f"{names} {param.metavar or param.name.upper()}"


def _text(option: Any) -> str:
    """What it does, and its default where that is a word."""
    said = getattr(option, "show_default", None)
    default = said if isinstance(said, str) else option.default
    return f"{option.help or ''} [default: {default}]" if isinstance(default, str) else option.help or ""


def _styled(text: str, code: str) -> str:
    return f"\x1b[{code}m{text}\x1b[0m" if has_colour() else text
