"""What is known of models whose weights are quantised, and kept so, in each form."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from gatenorm_stream.families.model import Model
from gatenorm_stream.families.scales import FLOAT8_DTYPES, FLOAT_DTYPES, MODELOPT, quantisation
from gatenorm_stream.families.scope import Scope
from gatenorm_stream.formats.edit import Limits, Obstacle
from gatenorm_stream.formats.engines import EVERY_ENGINE, Engine
from gatenorm_stream.sources.source import Kind

TRIED = frozenset({"awq", "bitsandbytes", "compressed-tensors pack-quantized", "fp8", "gptq", "torchao"})
"""Methods, one with its format, whose models were run pruned (tests/engines/test_quantised.py)."""
NOT_TRANSFORMERS = {
    "exl2": "exllamav2",
    "exl3": "exllamav3",
    "mlx": "mlx-lm",
    "modelopt": "TensorRT-LLM, vLLM and SGLang",
    "nvfp4": "others",
}
"""Methods whose files transformers does not load, and what does."""
ORIGINAL = "prune the unquantised original, then quantise that"
UNTRIED = "quantised models were tried in transformers only"


def is_quantised(model: Model) -> bool:
    """Of safetensors: in GGUF files the type of each tensor says all."""
    return model.checkpoint.kind is Kind.SAFETENSORS and bool(_method(model))


def loading_limits(model: Model) -> Limits:
    """Who can't load an output that is quantised as its source is."""
    if not is_quantised(model):
        return Limits()
    method = _method(model)
    kind = f"{method} {_quantisation(model).get('format')}" if method == "compressed-tensors" else method
    field = f"quant_method={kind}"
    others = EVERY_ENGINE - {Engine.TRANSFORMERS}
    found = [Obstacle(others, "quantization_config", UNTRIED, notice=True)]
    if engine := NOT_TRANSFORMERS.get(method):
        reason = f"transformers does not load it, and {engine} can't leave attention out of it"
        found.append(Obstacle(EVERY_ENGINE, field, reason, way_out=ORIGINAL))
    untried = f"{field} was not tried pruned: let transformers load the output before you rely on it"
    return Limits(tuple(found), () if kind in TRIED else (untried,))


def way_out_of_quantised(model: Model) -> str | None:
    """What is left to do where no format holds it; None if one may."""
    return ORIGINAL if _method(model) in NOT_TRANSFORMERS else None


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
    modelopt = "modelopt" if MODELOPT in model.checkpoint.source.names() else ""
    return _quantisation(model).get("quant_method") or modelopt


def _quantisation(model: Model) -> Mapping[str, Any]:
    checkpoint = model.checkpoint
    return quantisation(Scope(checkpoint, model.text, checkpoint.config_where, ""))
