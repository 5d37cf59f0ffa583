"""What is known of models whose weights are quantised, and kept so, in each form."""

from __future__ import annotations

from collections.abc import Iterator

from gatenorm_stream.families.model import Model
from gatenorm_stream.families.place import Place
from gatenorm_stream.families.scales import FLOAT8_DTYPES, FLOAT_DTYPES, MODELOPT, quantisation
from gatenorm_stream.formats.edit import Obstacle
from gatenorm_stream.formats.engines import EVERY_ENGINE, Engine
from gatenorm_stream.sources.source import Kind

NOT_TRANSFORMERS = {"exl2": "exllamav2", "exl3": "exllamav3", "modelopt": "TensorRT-LLM and vLLM"}
"""Methods that transformers does not load, and what does."""
ORIGINAL = "prune the unquantised original, then quantise that"
UNTRIED = "quantised models were tried in transformers only"


def is_quantised(model: Model) -> bool:
    """Of safetensors: in GGUF files the type of each tensor says all."""
    return model.checkpoint.kind is Kind.SAFETENSORS and bool(_method(model))


def loading_limits(model: Model) -> Iterator[Obstacle]:
    """Who can't load an output that is quantised as its source is."""
    if not is_quantised(model):
        return
    method = _method(model)
    if engine := NOT_TRANSFORMERS.get(method):
        reason = f"only {engine} load it, which can't leave attention out"
        yield Obstacle(EVERY_ENGINE, f"quant_method={method}", reason, way_out=ORIGINAL)
    others = EVERY_ENGINE - {Engine.TRANSFORMERS}
    yield Obstacle(others, "quantization_config", UNTRIED, notice=True)


def zeroing_limits(model: Model, dropped: tuple[int, ...]) -> Iterator[Obstacle]:
    """Zero bytes are not zero numbers in every packed form."""
    for layer in dropped:
        name = f"{model.output_module(layer)}.weight"
        tensor = model.checkpoint.tensors.get(name)
        if tensor is None or tensor.dtype not in (*FLOAT_DTYPES, *FLOAT8_DTYPES):
            field = f"{name} ({tensor.dtype if tensor else 'packed'})"
            yield Obstacle(EVERY_ENGINE, field, "its zeros are not known", way_out="use --format transformers")
            return


def _method(model: Model) -> str:
    checkpoint = model.checkpoint
    given = quantisation(Place(checkpoint, model.text, checkpoint.config_where, ""))
    if given:
        return str(given.get("quant_method") or "unknown")
    return "modelopt" if MODELOPT in checkpoint.source.names() else ""
