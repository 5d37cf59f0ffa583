"""`transformers`: attention really absent from a model of any family, for transformers.

The source's own config under a model type that no engine claims, so that nothing loads it as the stock model with
random attention; the file that travels along builds the stock class without those sublayers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from gatenorm_stream.errors import FormatError
from gatenorm_stream.families.model import Model
from gatenorm_stream.families.model_class import class_of
from gatenorm_stream.families.wrappers import WRAPPERS, Wrapper
from gatenorm_stream.formats.constants import beside
from gatenorm_stream.formats.edit import Added, Constants, Edit, Format, Limits, Obstacle
from gatenorm_stream.formats.engines import EVERY_ENGINE, Engine
from gatenorm_stream.formats.model_class import class_cautions, class_obstacles, language_model_obstacles
from gatenorm_stream.formats.quantised import is_quantised, loading_limits
from gatenorm_stream.formats.tokenizer import tokenizer_cautions
from gatenorm_stream.formats.travelling_file import architecture_of, auto_map_of, removed, travelling_files
from gatenorm_stream.formats.vllm_served import NOT_SERVED, SERVED

MODEL_TYPE = "gatenorm"
BY_PLUGIN = "vLLM runs it where gatenorm-stream is installed beside it"


def _limits(model: Model, dropped: tuple[int, ...], compensated: bool) -> Limits:
    wrapper = WRAPPERS.get(str(model.config.get("model_type")))
    architecture = (wrapper or model.family).architecture
    served = architecture in SERVED and not is_quantised(model)
    others = EVERY_ENGINE - {Engine.TRANSFORMERS, Engine.VLLM}
    reason = "only transformers runs its file"
    found = [Obstacle(others, "the form", reason, notice=True)]
    quantised = loading_limits(model)
    found += quantised.obstacles
    if architecture not in SERVED:
        reason = NOT_SERVED.get(architecture, "vLLM's plugin does not serve it")
        found.append(Obstacle(frozenset({Engine.VLLM}), f"architecture {architecture}", reason, notice=True))
    if not model.family.stock:
        reason = "transformers has no class of its own for it"
        found.append(Obstacle(EVERY_ENGINE, f"model_type={model.family.model_type}", reason))
    elif model.multimodal:
        found += _of_wrapper(wrapper, model.config)
    else:
        found += class_obstacles(model)
        beyond_vllm = (o for o in language_model_obstacles(model) if served)
        found += (replace(o, engines=frozenset({Engine.VLLM})) for o in beyond_vllm)
    served = served and not any(Engine.VLLM in o.engines for o in found)
    mine = (BY_PLUGIN,) if served else ()
    cautions = (*mine, *quantised.cautions, *tokenizer_cautions(model), *class_cautions(model))
    return Limits(tuple(found), cautions)


def _of_wrapper(wrapper: Wrapper | None, config: Mapping[str, Any]) -> Iterator[Obstacle]:
    """A multimodal model's class must be known, down to where it keeps its language model."""
    if wrapper is None:
        reason = "a multimodal model that was not tried pruned"
        yield Obstacle(EVERY_ENGINE, f"model_type={config.get('model_type')}", reason)
    elif (named := config.get("architectures")) not in (None, [wrapper.architecture]):
        yield Obstacle(
            EVERY_ENGINE, f"architectures={named}", f"of {wrapper.name} it builds {wrapper.architecture}"
        )


def _edit(model: Model, dropped: tuple[int, ...], constants: Constants) -> Edit:
    built = class_of(model)
    if built is None:
        raise FormatError(f"{model.checkpoint.config_where} names a class that transformers has not")
    config = {
        **model.config,
        "model_type": MODEL_TYPE,
        "architectures": [architecture_of(built)],
        "auto_map": auto_map_of(model, built),
        "gatenorm": removed(model, dropped, model.family, constants=bool(constants)),
    }
    names = frozenset(name for layer in dropped for name in model.attention_tensors(layer))
    add = tuple(_constant(model, layer, vector) for layer, vector in constants.items())
    return Edit(config, remove=names, add=add, files=travelling_files(model))


def _constant(model: Model, layer: int, vector: bytes) -> Added:
    """Where the output projection stood, as the parameter of the travelling file's module."""
    tensors = model.checkpoint.tensors
    after = tensors.get(f"{model.output_module(layer)}.weight") or tensors[model.attention_tensors(layer)[0]]
    return beside(after, model.constant_name(layer), (model.hidden,), vector)


TRANSFORMERS = Format("transformers", True, lambda family: family.stock, _limits, _edit)
