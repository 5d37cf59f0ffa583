"""Runs that are cut off after so many reports of progress."""

from __future__ import annotations

from gatenorm_stream.work import Progress


class CutError(Exception):
    """Cuts a run off."""


def cut_after(reports: int) -> Progress:
    """What raises CutError at the report after so many."""
    left = reports

    def progress(*_: object) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise CutError

    return progress
