"""`transformers`: attention really absent from a model of any family, for transformers.

The source's own config under a model type that no engine claims, so that nothing loads it as the stock model with
random attention; the file that travels along builds the stock class without those sublayers.
"""

from __future__ import annotations

from gatenorm_stream.families.model import Model
from gatenorm_stream.formats.edit import Edit, Format, Limits, Obstacle
from gatenorm_stream.formats.engines import EVERY_ENGINE, Engine
from gatenorm_stream.formats.travelling_file import AUTO_MAP, AUTO_MAP_MULTIMODAL, removed, travelling_file
from gatenorm_stream.formats.vllm_served import SERVED

MODEL_TYPE = "gatenorm"
ARCHITECTURE = "GateNormForCausalLM"
BY_PLUGIN = "vLLM runs it where gatenorm-stream is installed beside it"


def _limits(model: Model, dropped: tuple[int, ...]) -> Limits:
    architecture = model.family.architecture
    served = architecture in SERVED and not model.multimodal
    others = EVERY_ENGINE - {Engine.TRANSFORMERS, Engine.VLLM}
    reason = "only transformers runs its file"
    found = [Obstacle(others, "the form", reason, notice=True)]
    if not served:
        reason = "vLLM's plugin does not serve it (docs/engines.md)"
        found.append(Obstacle(frozenset({Engine.VLLM}), f"architecture {architecture}", reason, notice=True))
    if not model.family.stock:
        reason = "transformers has no class of its own for it"
        found.append(Obstacle(EVERY_ENGINE, f"model_type={model.family.model_type}", reason))
    elif model.multimodal and not isinstance(model.config.get("architectures"), list):
        reason = "it must name the multimodal model's class"
        found.append(Obstacle(EVERY_ENGINE, "architectures", reason))
    return Limits(tuple(found), (BY_PLUGIN,) if served else ())


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
