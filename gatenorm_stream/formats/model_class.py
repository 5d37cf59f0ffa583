"""What formats and engines make of another class than a language model's, or of other names of tensors."""

from __future__ import annotations

from collections.abc import Iterator

from gatenorm_stream.checkpoint.foreign_code import names_foreign
from gatenorm_stream.families.model import Model
from gatenorm_stream.families.model_class import (
    attends_both_ways,
    class_of,
    named_class,
    named_code,
    own_classes,
)
from gatenorm_stream.formats.edit import Obstacle
from gatenorm_stream.formats.engines import EVERY_ENGINE, Engine

OTHERS = EVERY_ENGINE - {Engine.TRANSFORMERS}
CONVERTED = frozenset({Engine.LLAMA_CPP, Engine.MLX_LM})
"""Engines that know tensors by their names alone."""
SHOWN = 60


def class_obstacles(model: Model) -> Iterator[Obstacle]:
    """Why the stock class of a language model, or the one that config.json names, can't stand for the source's."""
    if not model.family.stock:
        return
    own = own_classes(model)
    if foreign := next(filter(names_foreign, own), None):
        yield _foreign_class(foreign)
    elif own:
        yield Obstacle(
            EVERY_ENGINE,
            f"auto_map={own[0][:SHOWN]}",
            "the checkpoint's own class, in whose place transformers' would stand",
            way_out="use --format zeroed, which keeps it, or delete auto_map if transformers' own class is meant",
        )
    elif class_of(model) is None:
        yield Obstacle(
            EVERY_ENGINE,
            f"architectures={[named_class(model.config)]}"[:SHOWN],
            f"transformers has no such class for model_type={model.config.get('model_type')}",
            way_out="use --format zeroed, which keeps every shape",
        )


def foreign_class_obstacles(model: Model) -> Iterator[Obstacle]:
    """Why a format that keeps the class can't: its code is in another repository, and is not named on."""
    code = own_classes(model) if model.family.stock else named_code(model.config)
    if foreign := next(filter(names_foreign, code), None):
        yield _foreign_class(foreign)


def _foreign_class(named: str) -> Obstacle:
    return Obstacle(
        EVERY_ENGINE,
        f"auto_map={named[:SHOWN]}",
        "code of another repository, which no output names",
        way_out="bring that code into the model's folder, or delete auto_map if transformers' own class is meant",
    )


def class_cautions(model: Model) -> Iterator[str]:
    """What is said of a class that is not quite what config.json names."""
    named, built = named_class(model.config), class_of(model)
    if not model.family.stock or built is None or own_classes(model):
        return
    if named and named.casefold() != built.name.casefold():
        yield f"config.json names the class {named[:SHOWN]}; the output runs transformers' {built.name}"
    if code := named_code(model.config):
        yield f"config.json names its own code ({code[0][:SHOWN]}); the output runs transformers' {built.name}"


def language_model_obstacles(model: Model) -> Iterator[Obstacle]:
    """What of the model only transformers knows, as data for a form that other engines read."""
    if model.multimodal:
        return
    built = class_of(model)
    if built is not None and not built.is_language_model:
        yield Obstacle(OTHERS, f"architecture {built.name}", "tried with a language model's head only", notice=True)
    if attends_both_ways(model.config):
        reason = "tokens attend to later ones too, which was not tried there"
        yield Obstacle(OTHERS, "is_causal=false", reason, notice=True)
    if own_classes(model):
        yield Obstacle(OTHERS, "auto_map", "only transformers runs the checkpoint's own class", notice=True)
    if model.prefix != f"{model.family.layers}." and model.family.layers.startswith("model."):
        reason = f"they look for {model.family.layers}"
        yield Obstacle(CONVERTED, f"names {model.prefix}N", reason, notice=True)
    elif foreign := _foreign(model):
        yield Obstacle(CONVERTED, f"tensor {foreign}"[:SHOWN], "they know no such tensor", notice=True)


def _foreign(model: Model) -> str | None:
    """A tensor outside the body and the head of a language model."""
    if not model.family.layers.startswith("model."):
        return None
    return next((n for n in model.checkpoint.tensors if not n.startswith(("model.", "lm_head."))), None)
