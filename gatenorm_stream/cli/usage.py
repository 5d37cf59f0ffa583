"""Mistyped command lines: one line that says what was not understood, and what may have been meant."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import typer

from gatenorm_stream.spelling import similar


def _one_of(found: re.Match[str]) -> str:
    """Names the words that an option takes, or the one of them that was meant."""
    option, word, listed = found.groups()
    words = re.findall(r"'(.*?)'", listed)
    meant = similar(word, words)
    return f"{option} knows no {word}; " + (
        f"did you mean {meant}?" if meant else f"give one of {', '.join(words)}"
    )


REWORDED: tuple[tuple[str, str | Callable[[re.Match[str]], str]], ...] = (
    (r"Got unexpected extra argument(?:s|\(s\))? \((.*)\)", r"there is no place for \1"),
    (
        r"Invalid value for '--drop': Input should be a valid integer.*",
        "--drop takes a whole number; --share takes a share, such as 0.2",
    ),
    (r"Invalid value for '(.*)': Input should be a valid integer.*", r"\1 takes a whole number"),
    (r"Invalid value for '(.*)': Input should be a valid number.*", r"\1 takes a number such as 0.2"),
    (r"Invalid value for '(.*)': Value error, '(.*)' is not one of (.*)", _one_of),
    (r"Invalid value for '(.*)': Input should be greater than or equal to (.*)", r"\1 takes at least \2"),
    (r"Invalid value for '(.*)': Input should be less than or equal to (.*)", r"\1 takes at most \2"),
    ("Value error, ", ""),
)
"""What typer says, and what is said here."""


VERSION = {"-v": "--version", "-V": "--version"}
"""What other programs call it."""

_GLUED = re.compile(r"(--[\w-]+=|-[a-zA-Z])(~.*)", re.DOTALL)


def with_home(arguments: Iterable[str]) -> list[str]:
    """The home folder for a ~ that begins a path: shells leave it alone behind = and in quotes, and who starts the
    command without a shell gets none. A folder of that name is ./~.
    """
    glued = ((_GLUED.fullmatch(argument), argument) for argument in arguments)
    return [m[1] + os.path.expanduser(m[2]) if m else os.path.expanduser(argument) for m, argument in glued]


class UsageProblem(typer.BadParameter):
    """Its message is all that is shown."""

    def format_message(self) -> str:
        return self.message


def usage_line(error: Any) -> str:
    """`error` is what typer raises for a command line that it can't read."""
    ctx, text = error.ctx, error.format_message().strip().removesuffix(".")
    option = getattr(error, "option_name", None)
    if ctx and option and text.lower().startswith("no such option"):
        text = f"there is no option {option}{_meant(option, ctx)}"
    for found, said in REWORDED:
        text = re.sub(found, said, text)
    if ctx and ctx.command.name == "prune" and text.startswith("there is no place for"):
        text += "; the output is named by --out"
    text = " ".join(text.split())
    more = f" ({ctx.command_path} --help)" if ctx and not isinstance(error, UsageProblem) else ""
    begin = text[:1] if isinstance(error, UsageProblem) else text[:1].lower()
    return f"error: {begin}{text[1:]}{more}"


def _meant(option: str, ctx: typer.Context) -> str:
    group: Any = ctx.parent or ctx
    others: dict[str, Any] = getattr(group.command, "commands", {})
    if having := [name for name, command in others.items() if option in options_of(command, ctx)]:
        return f" here; {' and '.join(having)} {'has' if len(having) == 1 else 'have'} it"
    known = VERSION.get(option) or similar(option, options_of(ctx.command, ctx) + options_of(group.command, group))
    return f"; did you mean {known}?" if known else ""


def options_of(command: Any, ctx: typer.Context) -> list[str]:
    return [opt for param in command.get_params(ctx) if param.param_type_name == "option" for opt in param.opts]


def check_command(words: Sequence[str], commands: Iterable[str], is_there: Callable[[str], bool]) -> None:
    """A first word that is neither a command nor a model, but much like a command or before a model: raises
    UsageProblem.
    """
    first = words[0]
    if is_there(first) or "/" in first:
        return
    if meant := similar(first, commands):
        raise UsageProblem(f"{first} is neither a command nor a model; did you mean {meant}?")
    if len(words) > 1 and is_there(words[1]):
        raise UsageProblem(f"{first} is neither a command nor a model; gatenorm-stream --help lists the commands")
