"""Options that commands share, and what they stand for."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from gatenorm_stream.cli.usage import UsageProblem
from gatenorm_stream.scoring.readings import Reading

if TYPE_CHECKING:
    from gatenorm_stream.scoring.selection import Choice


def _share(text: str) -> float:
    """Raises UsageProblem for what is no number, with the one that a percentage or a fraction may stand for."""
    try:
        return float(text)
    except ValueError:
        pass
    percentage, fraction = re.fullmatch(r"([\d.]+) ?%", text), re.fullmatch(r"(\d+)/(\d+)", text)
    try:
        meant = (
            float(percentage[1]) / 100 if percentage else int(fraction[1]) / int(fraction[2]) if fraction else None
        )
    except (ValueError, ZeroDivisionError):
        meant = None
    more = f"; did you mean {meant:g}?" if meant else ", such as 0.2"
    raise UsageProblem(f"--share takes a number between 0 and 1, not {text!r}{more}")


WHAT_GOES = "What goes"
HUB = "Hub"

LONGEST_RANGE = 10_000
"""Of a range in --layers; of a longer one, its beginning is refused."""

ModelName = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="Directory of a safetensors checkpoint, a GGUF file, or org/name[@revision][:file.gguf or :Q4_K_M] "
        "on the Hub.",
    ),
]
Output = Annotated[
    Path, typer.Argument(metavar="DIR", help="An output of gatenorm-stream: its directory, or its GGUF file.")
]
RevisionOption = Annotated[
    str | None,
    typer.Option(metavar="REVISION", help="Branch, tag or commit on the Hub.", rich_help_panel=HUB),
]
ConnectionsOption = Annotated[
    int | None,
    typer.Option(
        metavar="N", min=1, max=64, help="Requests to the Hub at once; 8 by default.", rich_help_panel=HUB
    ),
]
READING = typer.Option(
    metavar="READING",
    help="How layers are scored: per-head, joint or stored.",
    show_default="per-head",
)
ReadingOption = Annotated[Reading, READING]
ReadingIfGiven = Annotated[Reading | None, READING]
ForcePictureOption = Annotated[bool, typer.Option("--force", help="Replace a picture that is there.")]
ByOption = Annotated[
    Literal["gate-norm", "influence"] | None,
    typer.Option(
        metavar="HOW",
        help="What chooses: gate-norm, from weights alone; or influence, from one run of the model.",
        rich_help_panel=WHAT_GOES,
        show_default="gate-norm",
    ),
]
MEASURE = "Run the model"
TextOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", help="Plain text to run the model on; a built-in one by default.", rich_help_panel=MEASURE
    ),
]
TOKENS = partial(
    typer.Option,
    metavar="N",
    min=16,
    help="Tokens of it to choose on, and as many others to judge on.",
    rich_help_panel=MEASURE,
)
ThreadsOption = Annotated[
    int | None, typer.Option(metavar="N", min=1, help="Threads to use; all processors by default.")
]
DaskOption = Annotated[
    str | None,
    typer.Option(metavar="ADDRESS", help="Score on the workers of this dask scheduler, such as tls://host:8786."),
]
DaskInsecureOption = Annotated[
    bool,
    typer.Option(
        "--dask-insecure",
        help="Let --dask be unencrypted off this machine; whoever is on the way may run code.",
    ),
]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors and --json.")]
QuietAlone = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")]
DebugOption = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
DropOption = Annotated[
    int | None,
    typer.Option(metavar="N", help="How many attention sublayers go.", rich_help_panel=WHAT_GOES),
]
ShareOption = Annotated[
    float | None,
    typer.Option(
        metavar="SHARE",
        parser=_share,
        help="Share of the attention sublayers that goes; 0.125 by default.",
        rich_help_panel=WHAT_GOES,
    ),
]
ProtectFirstOption = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        min=0,
        help="Layers at the start that are never chosen; 1 by default, since llama.cpp and vLLM can't run without "
        "layer 0's attention.",
        rich_help_panel=WHAT_GOES,
    ),
]
ProtectLastOption = Annotated[
    int,
    typer.Option(metavar="N", min=0, help="Layers at the end that are never chosen.", rich_help_panel=WHAT_GOES),
]


def chosen(
    drop: int | None,
    share: float | None,
    layers: str | None,
    plan: Path | None,
    protect_first: int | None,
    protect_last: int,
    max_rise: float | None = None,
) -> Choice:
    """Raises UsageProblem if more than one of the ways to choose is used."""
    from gatenorm_stream.scoring.selection import Choice

    given = {"--drop": drop, "--share": share, "--layers": layers, "--max-rise": max_rise, "--plan": plan}
    used = [name for name, value in given.items() if value is not None]
    if len(used) > 1:
        raise UsageProblem(f"{' and '.join(used)} exclude each other; give one")
    return Choice(drop, share, _layers(layers), protect_first, protect_last, max_rise)


def check_reading_of(by: str | None, reading: str | None) -> None:
    """Raises UsageProblem if a reading of Gate-Norm is given where influence chooses."""
    if reading and by == "influence":
        raise UsageProblem("--reading is Gate-Norm's; leave it out beside --by influence")


def check_plan_alone(**beside: object) -> None:
    """Raises UsageProblem if one of these options, which a saved plan answers itself, is given beside it."""
    if given := [f"--{name.replace('_', '-')}" for name, value in beside.items() if value not in (None, [])]:
        raise UsageProblem(f"--plan already settles {' and '.join(given)}; leave that out")


def _layers(text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    layers = dict[int, None]()
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,6})(?:-(\d{1,6}))?\s*", part)
        if not match or (match[2] and int(match[2]) < int(match[1])):
            raise UsageProblem(f"--layers takes numbers and ranges as 3,7-9, not {text!r}")
        first, last = int(match[1]), int(match[2] or match[1])
        layers |= dict.fromkeys(range(first, min(last, first + LONGEST_RANGE) + 1))
    return tuple(layers)
