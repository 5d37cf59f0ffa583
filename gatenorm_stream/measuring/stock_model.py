"""The stock class of transformers for a model, on the meta device: every module is there, and no weight."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import transformers
from transformers import PreTrainedModel

from gatenorm_stream.errors import CheckpointError, UnsupportedModelError
from gatenorm_stream.families.model import Model
from gatenorm_stream.families.wrappers import WRAPPERS
from gatenorm_stream.sources.source import Kind

COUNTS = re.compile(r"(^|_)(layers?|depth|depths|experts|blocks|n_layer)$")
"""Names of config entries that say how many modules are built one by one."""
MOST_MODULES = 4096
"""More than any model has of one kind."""
CODE = ("auto_map", "attn_implementation", "experts_implementation", "use_kernels", "custom_pipelines")
"""Config entries that may have transformers fetch or run code. Those that begin with _ are its own, too."""
INFINITY = "__float__"
"""How a config.json of transformers says numbers that JSON has not."""
LOADING = ("quantization_config", "torch_dtype", "dtype")
"""Of numbers that our reader widens itself."""


@dataclass(frozen=True)
class StockModel:
    """Parts of the stock model, and where they stand in it.

    `body` holds the decoder layers, `head` follows it, and `owner` is the module whose forward makes the head's
    logits of what its child `owner_body` puts out.
    """

    model: PreTrainedModel
    body_path: str
    body: PreTrainedModel
    layers: torch.nn.ModuleList
    owner: PreTrainedModel
    owner_body: torch.nn.Module
    embedding_path: str
    embedding: torch.nn.Module
    head_path: str
    head: torch.nn.Module


def build_stock_model(model: Model) -> StockModel:
    """Builds it from config.json's own entries, for float32. No remote code, and only classes of transformers.

    Raises UnsupportedModelError if transformers has no class for it or can't build it, CheckpointError if
    config.json asks for more modules than any model has.
    """
    title = model.checkpoint.source.title
    model_type, architecture, layers_path = _stock_names(model)
    check_counts(model.config, model.checkpoint.config_where)
    try:
        config_class, model_class = transformers.CONFIG_MAPPING[model_type], getattr(transformers, architecture)
    except (KeyError, AttributeError):
        raise UnsupportedModelError(
            f"{title} needs {architecture}, which transformers {transformers.__version__} has no class for; "
            "install a newer transformers"
        ) from None
    try:
        config = config_class.from_dict(plain_config(dict(model.config)))
        with torch.device("meta"):
            stock = model_class._from_config(
                config, dtype=torch.float32, attn_implementation=_attention(model_class, config)
            ).eval()
    except Exception as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise UnsupportedModelError(
            f"transformers {transformers.__version__} can't build {architecture} from "
            f"{model.checkpoint.config_where}: {reason[0]}"
        ) from error
    return _parts(stock, layers_path)


def plain_config(config: Any) -> Any:
    """Without what could have transformers run code or quantise, at any depth, and with its infinite numbers."""
    if isinstance(config, list):
        return [plain_config(value) for value in config]
    if not isinstance(config, dict):
        return config
    if config.keys() == {INFINITY} and config[INFINITY] in ("Infinity", "-Infinity", "NaN"):
        return float(config[INFINITY])
    return {
        key: plain_config(value)
        for key, value in config.items()
        if key not in (*CODE, *LOADING) and not key.startswith("_")
    }


def check_counts(config: Mapping[str, Any], where: str) -> None:
    """Modules are built one by one before a weight is read. Raises CheckpointError if they would be too many."""
    for key, value in config.items():
        if isinstance(value, dict):
            check_counts(value, where)
        elif COUNTS.search(key) and isinstance(value, int) and value > MOST_MODULES:
            raise CheckpointError(f"{where} has {key}={value}, more than any model has; restore it")


def _stock_names(model: Model) -> tuple[str, str, str]:
    """Model type, class, and the path of the decoder layers in it."""
    row, title = model.family, model.checkpoint.source.title
    if model.checkpoint.kind is Kind.GGUF:
        raise UnsupportedModelError(
            f"{title} ({row.name}) can't be measured from GGUF; measure its safetensors form"
        )
    if not row.stock:
        raise UnsupportedModelError(
            f"{title} ({row.name}) can't be measured: transformers has no class that runs it"
        )
    if not model.multimodal:
        return row.model_type, row.architecture, row.layers
    wrapper = WRAPPERS.get(str(model.config.get("model_type")))
    if wrapper is None:
        raise UnsupportedModelError(
            f"{title} can't be measured: model_type={model.config.get('model_type')!r} is a multimodal model that "
            "is not known; `gatenorm-stream families` lists those that are"
        )
    return wrapper.model_type, wrapper.architecture, f"{wrapper.language_model}.{row.layers.rpartition('.')[2]}"


def _attention(model_class: type[PreTrainedModel], config: Any) -> str:
    """How attention is computed: exactly. torch's fused function can't cap logits."""
    capped = getattr(config.get_text_config(), "attn_logit_softcapping", None)
    return "sdpa" if model_class._supports_sdpa and not capped else "eager"


def _parts(stock: PreTrainedModel, layers_path: str) -> StockModel:
    paths = {module: path for path, module in stock.named_modules()}
    body_path = layers_path.rpartition(".")[0]
    body, head = stock.get_submodule(body_path), stock.get_output_embeddings()
    embedding, head_path = body.get_input_embeddings(), paths[head]
    owner_path = head_path.rpartition(".")[0]
    owner = stock.get_submodule(owner_path)
    child = body_path.removeprefix(f"{owner_path}.").partition(".")[0]
    return StockModel(
        stock,
        body_path,
        body,
        stock.get_submodule(layers_path),
        owner,
        owner.get_submodule(child),
        paths[embedding],
        embedding,
        head_path,
        head,
    )
