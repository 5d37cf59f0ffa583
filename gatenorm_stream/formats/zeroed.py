"""`zeroed`: the same architecture with the output projections of the chosen layers set to zero.

The attention adds nothing, as if it were gone, and every shape stays: whatever loads the source loads this. It
saves neither memory nor time by itself.
"""

from __future__ import annotations

from gatenorm_stream.families.model import Model
from gatenorm_stream.formats.edit import Edit, Format, Limits


def _limits(model: Model, dropped: tuple[int, ...]) -> Limits:
    return Limits()


def _edit(model: Model, dropped: tuple[int, ...]) -> Edit:
    return Edit(
        config=model.config,
        zero=frozenset(name for layer in dropped for name in model.output_projection(layer)),
    )


ZEROED = Format("zeroed", False, lambda family: True, _limits, _edit)
