"""Standard streams that were closed, or can't be written any more."""

from __future__ import annotations

import logging
import os
import sys
import warnings

from gatenorm_stream.printable import printable


def open_closed_streams() -> None:
    """They lead nowhere from now on. Else a file that is written could be given the number of one of them."""
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(number)
    if sys.stdout is None:
        sys.stdout = os.fdopen(1, "w", encoding="utf-8")
    if sys.stderr is None:
        sys.stderr = os.fdopen(2, "w", encoding="utf-8")


def give_up_output() -> None:
    """What is still to be written goes nowhere, so that the interpreter has nothing to complain of as it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def flush_output() -> None:
    """Raises OSError, and gives up what could not be written."""
    try:
        sys.stdout.flush()
    except OSError:
        give_up_output()
        raise


class _PrintableRecord(logging.LogRecord):
    """What still comes may quote a stranger's file."""

    def getMessage(self) -> str:  # noqa: N802
        return printable(super().getMessage(), keep="\n")


def _printable_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    return printable(f"{filename}:{lineno}: {category.__name__}: {message}\n", keep="\n")


def hush_libraries() -> None:
    """What libraries remark in passing, on a stranger's files or a user's settings, is neither asked for nor ours.

    What they find wrong comes as an error. PYTHONWARNINGS still shows Python's own warnings.
    """
    logging.disable(logging.WARNING)
    logging.setLogRecordFactory(_PrintableRecord)
    warnings.formatwarning = _printable_warning
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
