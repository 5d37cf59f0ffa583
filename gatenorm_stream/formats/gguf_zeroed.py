"""`zeroed` in a GGUF file: the output projections are zero, with a constant as bias where llama.cpp takes one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from gatenorm_stream.checkpoint.gguf_types import is_known
from gatenorm_stream.families.gguf import ARCHITECTURE
from gatenorm_stream.families.model import Model
from gatenorm_stream.formats.constants import added_as
from gatenorm_stream.formats.deci import LLAMA_CPP_ONLY, OTHER_FORM
from gatenorm_stream.formats.edit import Added, Constants, Edit, Limits, Obstacle
from gatenorm_stream.formats.engines import EVERY_ENGINE
from gatenorm_stream.formats.merge_order import merge_order_cautions, with_merge_order
from gatenorm_stream.formats.zeroed import NO_CONSTANTS, ZEROED

TAKE_A_BIAS = frozenset({"llama"})
"""Architectures whose output projection may have a bias or not, in each layer (tests/engines)."""


def _limits(model: Model, dropped: tuple[int, ...], compensated: bool) -> Limits:
    plain = compensated and not _holds_constants(model, dropped)
    cautions = (*((NO_CONSTANTS,) if plain else ()), *merge_order_cautions(model.config))
    return Limits((LLAMA_CPP_ONLY, *_opaque(model, dropped)), cautions)


def _opaque(model: Model, dropped: tuple[int, ...]) -> Iterator[Obstacle]:
    """An output projection of a type that is not known, and so are its zeros."""
    for layer in dropped:
        tensor = model.checkpoint.tensors.get(f"{model.output_module(layer)}.weight")
        if tensor and not is_known(tensor.dtype):
            reason = "a type that is not known, and so are its zeros"
            yield Obstacle(EVERY_ENGINE, f"{tensor.name} of {tensor.dtype}", reason, way_out=OTHER_FORM)
            return


def _edit(model: Model, dropped: tuple[int, ...], constants: Constants) -> Edit:
    edit = ZEROED.edit(model, dropped, {})
    edit = replace(edit, config=with_merge_order(edit.config))
    if not constants or not _holds_constants(model, dropped):
        return edit
    add = tuple(_bias(model, layer, vector) for layer, vector in constants.items())
    held = edit.zero & {new.name for new in add}
    return replace(edit, zero=edit.zero - held, remove=held, add=add)


def _holds_constants(model: Model, dropped: tuple[int, ...]) -> bool:
    there = all(f"{model.output_module(layer)}.bias" in model.checkpoint.tensors for layer in dropped)
    return there or model.text[ARCHITECTURE] in TAKE_A_BIAS


def _bias(model: Model, layer: int, vector: bytes) -> Added:
    module, tensors = model.output_module(layer), model.checkpoint.tensors
    after = tensors.get(f"{module}.bias", tensors[f"{module}.weight"])
    return added_as("F32", after, f"{module}.bias", (model.hidden,), vector)


GGUF_ZEROED = replace(ZEROED, limits=_limits, edit=_edit)
