"""`transformers`: attention really absent from a model of any family, for transformers.

The source's own config under a model type that no engine claims, so that nothing loads it as the stock model with
random attention; the file that travels along builds the stock class without those sublayers.
"""

from __future__ import annotations

from gatenorm_stream.families.model import Model
from gatenorm_stream.formats.edit import Edit, Format, Limits, Obstacle
from gatenorm_stream.formats.engines import EVERY_ENGINE, Engine
from gatenorm_stream.formats.travelling_file import AUTO_MAP, AUTO_MAP_MULTIMODAL, removed, travelling_file

MODEL_TYPE = "gatenorm"
ARCHITECTURE = "GateNormForCausalLM"


def _limits(model: Model, dropped: tuple[int, ...]) -> Limits:
    others = EVERY_ENGINE - {Engine.TRANSFORMERS}
    reason = "only transformers runs its file; vLLM many families by a plugin (docs/engines.md)"
    found = [Obstacle(others, "the form", reason, notice=True)]
    if not model.family.stock:
        reason = "transformers has no class of its own for it"
        found.append(Obstacle(EVERY_ENGINE, f"model_type={model.family.model_type}", reason))
    elif model.multimodal and not isinstance(model.config.get("architectures"), list):
        reason = "it must name the multimodal model's class"
        found.append(Obstacle(EVERY_ENGINE, "architectures", reason))
    return Limits(tuple(found))


def _edit(model: Model, dropped: tuple[int, ...]) -> Edit:
    config = {
        **model.config,
        "model_type": MODEL_TYPE,
        "architectures": [ARCHITECTURE],
        "auto_map": AUTO_MAP_MULTIMODAL if model.multimodal else AUTO_MAP,
        "gatenorm": removed(model, dropped, model.family),
    }
    names = frozenset(name for layer in dropped for name in model.attention_tensors(layer))
    return Edit(config, remove=names, files=travelling_file())


TRANSFORMERS = Format("transformers", True, lambda family: family.stock, _limits, _edit)
