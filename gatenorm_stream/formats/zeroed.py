"""`zeroed`: the same architecture with the output projections of the chosen layers set to zero.

The attention adds nothing, as if it were gone, and every shape stays: whatever loads the source loads this. It
saves neither memory nor time by itself.
"""

from __future__ import annotations

from gatenorm_stream.families.model import Model
from gatenorm_stream.formats.constants import beside
from gatenorm_stream.formats.edit import Added, Constants, Edit, Format, Limits
from gatenorm_stream.formats.model_class import foreign_class_obstacles, language_model_obstacles
from gatenorm_stream.formats.quantised import zeroing_limits

NO_CONSTANTS = (
    "zeroed holds no constants in this model, whose output projections have no bias: it is written without them"
)


def _limits(model: Model, dropped: tuple[int, ...], compensated: bool) -> Limits:
    cautions = (NO_CONSTANTS,) if compensated and not _biases(model, dropped) else ()
    found = (*zeroing_limits(model, dropped), *foreign_class_obstacles(model), *language_model_obstacles(model))
    return Limits(found, cautions)


def _edit(model: Model, dropped: tuple[int, ...], constants: Constants) -> Edit:
    names = frozenset(name for layer in dropped for name in model.output_projection(layer))
    add = tuple(_held(model, name, constants[layer]) for layer, name in _biases(model, dropped) if constants)
    held = frozenset(new.name for new in add)
    return Edit(config=model.config, remove=held, zero=names - held, add=add)


def _held(model: Model, bias: str, vector: bytes) -> Added:
    return beside(model.checkpoint.tensors[bias], bias, (model.hidden,), vector)


def _biases(model: Model, dropped: tuple[int, ...]) -> tuple[tuple[int, str], ...]:
    """Each layer with the bias of its output projection; none unless all have one that the model adds."""
    if not model.family.has_output_bias(model.text):
        return ()
    found = ((n, f"{model.output_module(n)}.bias") for n in dropped)
    biases = tuple((layer, name) for layer, name in found if name in model.checkpoint.tensors)
    return biases if len(biases) == len(dropped) else ()


ZEROED = Format("zeroed", False, lambda family: True, _limits, _edit)
