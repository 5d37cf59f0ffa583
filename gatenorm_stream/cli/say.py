"""All that the command prints for people and programs: no byte of a stranger's reaches a terminal as a command."""

from __future__ import annotations

import json
import re
from typing import Any

import typer

from gatenorm_stream.printable import printable


def say(text: str = "", *, err: bool = False) -> None:
    typer.echo(printable(text, keep="\n"), err=err)


def say_in_colour(text: str) -> None:
    """Of our words and numbers alone: nothing in it is a stranger's."""
    typer.echo(text)


def say_json(value: Any) -> None:
    """As JSON that is read as the same value, whatever characters stand in it."""
    typer.echo(re.sub(r"[^\n -~]+", _escaped, json.dumps(value, indent=1, ensure_ascii=False)))


def _escaped(text: re.Match[str]) -> str:
    return "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in text[0])
