"""A picture as a file, of the kind that its name ends in."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from gatenorm_stream.errors import PictureError
from gatenorm_stream.extras import install
from gatenorm_stream.report.picture import Picture

KINDS = (".svg", ".html", ".png")


def check_plot(path: Path) -> None:
    """Raises PictureError if no picture could be drawn to `path`, before there is one."""
    if path.suffix.lower() not in KINDS:
        raise PictureError(f"{path} is no kind of picture that can be drawn; end its name in {', '.join(KINDS)}")
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise PictureError(f"{path} can't be written: its folder does not exist, or it is one; choose another name")
    if path.suffix.lower() == ".png" and not find_spec("matplotlib"):
        raise PictureError(
            f"{path} would be drawn by matplotlib, which is not installed: {install('plot')}; a .svg or .html "
            "needs nothing"
        )


def plot(picture: Picture, path: Path) -> None:
    """Raises OSError if `path` can't be written."""
    match path.suffix.lower():
        case ".png":
            from gatenorm_stream.report.png import png

            path.write_bytes(png(picture))
        case ".html":
            from gatenorm_stream.report.svg import html

            path.write_text(html(picture), encoding="utf-8")
        case _:
            from gatenorm_stream.report.svg import svg

            path.write_text(svg(picture), encoding="utf-8")
