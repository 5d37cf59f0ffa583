"""Where errors end: one line on standard error and an exit code, never a traceback unless --debug asks for it."""

from __future__ import annotations

import errno
import functools
import os
import re
import signal
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import typer

from gatenorm_stream.cli.ending import CODES, LastLine, Terminated, ended_by_signals
from gatenorm_stream.cli.fold import folded
from gatenorm_stream.cli.say import say
from gatenorm_stream.cli.streams import flush_output, give_up_output, hush_libraries
from gatenorm_stream.errors import GateNormError, VerificationError
from gatenorm_stream.printable import printable

SHOWN_PROBLEMS = 20
LONGEST_SHOWN = 300
"""Characters of a path that the system names in an error."""

F = TypeVar("F", bound=Callable[..., None])


def reported(command: F) -> F:
    """Ends known errors with exit code 1, interrupts with 130, SIGTERM with 143, a closed pipe with 141."""

    @functools.wraps(command)
    def run(*args: Any, debug: bool = False, **kwargs: Any) -> None:
        last = LastLine(lambda number: _last_line(number, kwargs))
        with ended_by_signals(last):
            run_reported(last, args, kwargs, debug=debug)

    def run_reported(last: LastLine, args: Any, kwargs: Any, *, debug: bool) -> None:
        if not debug:
            hush_libraries()
        try:
            command(*args, **kwargs)
            flush_output()
        except (typer.Exit, typer.BadParameter):
            raise
        except BrokenPipeError:
            give_up_output()
            raise typer.Exit(141) from None
        except Exception as error:
            if debug:
                raise
            _say(f"error: {_line(error)}")
            if isinstance(error, VerificationError) and len(error.problems) > 1:
                for problem in error.problems[:SHOWN_PROBLEMS]:
                    _say(f"  {problem}")
            raise typer.Exit(1) from None
        except KeyboardInterrupt as ended:
            number = signal.SIGTERM if isinstance(ended, Terminated) else signal.SIGINT
            if line := last.of(number):
                say(line, err=True)
            raise typer.Exit(CODES[number]) from None

    return run  # type: ignore[return-value]


def _line(error: Exception) -> str:
    match error:
        case GateNormError():
            text = str(error)
        case OSError(filename=str(path), strerror=str(why)):
            text = f"{path[:LONGEST_SHOWN]} can't be used: {why}; fix that, or give another path"
        case OSError(errno=errno.ENOENT):  # which no name was given for
            text = "the current directory is gone; change to another, then run again"
        case OSError():
            text = str(error)
        case RecursionError():
            text = "folders stand too deep within each other; move the model or the output out of them"
        case MemoryError():
            text = "there is not enough memory; allow more of it, or give --threads 1"
        case _:
            text = f"unexpected {type(error).__name__}: {error}; --debug shows where, please report it"
    return re.sub(r"[\x00-\x1f\x7f]+", " ", text)


def _last_line(number: int, kwargs: dict[str, Any]) -> str:
    out = kwargs.get("out")
    partial = out and os.fspath(out).rstrip("/") + ".partial"
    resumes = partial and os.path.exists(partial)
    ended = "terminated" if number == signal.SIGTERM else "interrupted"
    line = f"{ended}; {out} is untouched, the same command resumes from {partial}" if resumes else ended
    return printable(folded(line, sys.stderr), keep="\n")


def _say(line: str) -> None:
    say(folded(line, sys.stderr), err=True)
