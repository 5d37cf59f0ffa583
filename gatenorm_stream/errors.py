"""Every error a user can meet. Each message is one line: what was found, where, and what to do next.

GateNormError
├── CheckpointError          the source is not a readable safetensors checkpoint
│   ├── HeaderError          a safetensors file breaks the format
│   └── HubError             the Hub refuses, or is not reached
├── UnsupportedModelError    readable, but of a form that is not known here
├── SelectionError           the layers asked for can't be chosen
├── ComparisonError          two models have not the same layers
├── FormatError              an output format can't express the pruned model
├── PlanError                a saved plan is damaged or belongs to another model
├── OutputError              an output can't be written, or is not there
├── PictureError             a picture can't be drawn
├── TextError                a text can't be measured on
└── VerificationError        an output is not what its plan says
"""

from __future__ import annotations

from collections.abc import Sequence

from gatenorm_stream.printable import printable

BEGIN, END = 1400, 500
"""How many characters of a long message are shown."""


class GateNormError(Exception):
    """Base of all errors that gatenorm-stream raises on purpose.

    What a message quotes is often a stranger's: a line break, like all that is not seen, is shown as an escape, and
    of a message that is too long to be read the middle is left out.
    """

    def __init__(self, message: str) -> None:
        text = printable(message)
        super().__init__(text if len(text) <= BEGIN + END else f"{text[:BEGIN]} [...] {text[-END:]}")


class CheckpointError(GateNormError):
    pass


class HeaderError(CheckpointError):
    pass


class HubError(CheckpointError):
    pass


class UnsupportedModelError(GateNormError):
    pass


class SelectionError(GateNormError):
    pass


class ComparisonError(GateNormError):
    pass


class FormatError(GateNormError):
    pass


class PlanError(GateNormError):
    pass


class OutputError(GateNormError):
    pass


class PictureError(GateNormError):
    pass


class TextError(GateNormError):
    pass


class VerificationError(GateNormError):
    """Carries one line for each thing that is wrong in `problems`."""

    def __init__(self, where: str, problems: Sequence[str], verdict: str = "failed verification") -> None:
        self.problems = tuple(problems)
        found = problems[0] if len(problems) == 1 else f"{len(problems)} problems, first: {problems[0]}"
        super().__init__(f"{where} {verdict}: {found}")
