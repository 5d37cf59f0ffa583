"""A picture as a file, of the kind that its name ends in."""

from __future__ import annotations

import os
import secrets
from importlib.util import find_spec
from pathlib import Path

from gatenorm_stream.errors import PictureError
from gatenorm_stream.folder import Folder, open_folder
from gatenorm_stream.names import OWN_PREFIX
from gatenorm_stream.report.picture import Picture
from gatenorm_stream.version import install
from gatenorm_stream.writing.renames import move

KINDS = (".svg", ".html", ".png")


def check_plot(path: Path, *, force: bool = False) -> None:
    """Raises PictureError if no picture could be drawn to `path`, before there is one."""
    if path.suffix.lower() not in KINDS:
        raise PictureError(f"{path} is no kind of picture that can be drawn; end its name in {', '.join(KINDS)}")
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise PictureError(f"{path} can't be written: its folder does not exist, or it is one; choose another name")
    if path.is_symlink() or (path.exists() and not path.is_file()):
        raise PictureError(f"{path} is not a regular file, and nothing is drawn to it; choose another name")
    if path.exists() and not force:
        raise PictureError(f"{path} exists; choose another name, or --force to replace it")
    if not os.access(path if path.exists() else path.absolute().parent, os.W_OK):
        raise PictureError(f"{path} can't be written: you may not write there; choose another name")
    if path.suffix.lower() == ".png" and not find_spec("matplotlib"):
        raise PictureError(
            f"{path} would be drawn by matplotlib, which is not installed: {install('plot')}; a .svg or .html "
            "needs nothing"
        )


def plot(picture: Picture, path: Path, *, force: bool = False) -> None:
    """A new file, whole or none; with `force`, in the place of one that is there, which other names of it keep.

    Raises PictureError if `path` can't be written, or if someone made one in the meantime.
    """
    drawn = _drawn(picture, path.suffix.lower())
    if force:
        check_plot(path, force=True)
    try:
        with open_folder(path.absolute().parent) as home:
            _write(drawn, home, path.name, force)
    except FileExistsError:
        raise PictureError(f"{path} was made by someone else in the meantime; choose another name") from None
    except OSError as error:
        raise PictureError(f"{path} can't be written: {error.strerror}; choose another name") from error


def _write(drawn: bytes, home: Folder, name: str, force: bool) -> None:
    growing = f"{OWN_PREFIX}{secrets.token_hex(4)}"
    try:
        home.write(growing, drawn)
        if force:
            os.replace(growing, name, src_dir_fd=home.handle, dst_dir_fd=home.handle)
        else:
            move(home, growing, home, name)
    finally:
        home.unlink(growing)


def _drawn(picture: Picture, kind: str) -> bytes:
    match kind:
        case ".png":
            from gatenorm_stream.report.png import png

            return png(picture)
        case ".html":
            from gatenorm_stream.report.svg import html

            return html(picture).encode("utf-8")
        case _:
            from gatenorm_stream.report.svg import svg

            return svg(picture).encode("utf-8")
