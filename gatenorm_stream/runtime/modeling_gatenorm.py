"""Run a model whose attention sublayers were partly removed, with the stock classes of transformers.

This file travels with checkpoints written by gatenorm-stream. `config.json` names it under `auto_map`, so

    AutoModelForCausalLM.from_pretrained(DIR, trust_remote_code=True)

runs it. It opens no connection, starts no process and reads nothing but the checkpoint that transformers hands
it; when such a model is saved, this file is copied beside the weights. llama.cpp, mlx-lm and vLLM read the same
checkpoint by its `block_configs`; vLLM takes its config from here too, the other two do not use this file.

What it does. `config.json` is the source model's own config and says under `gatenorm` what was removed:

    "gatenorm": {"model_type": "llama", "architecture": "LlamaForCausalLM", "pruned_layers": [1, 6]}

The model is the source architecture's stock class. In each pruned layer, `NoAttention` stands for attention and
the identity for the norm before it, so that the layer computes x + MLP(norm(x)). These layers have no
projections and no key-value cache.

Tested with transformers 5.17, 5.18, 5.22 and 5.23. From 5.23 on, pruned layers have an empty cache; before,
transformers counts the cached tokens layer by layer, and each pruned layer holds two zeros per token.
"""

import os
import shutil

import torch
import transformers
from transformers import PreTrainedConfig, cache_utils

MODEL_TYPE = "nemotron-nas"
ARCHITECTURE = "DeciLMForCausalLM"
AUTO_MAP = {
    "AutoConfig": "modeling_gatenorm.GateNormConfig",
    "AutoModelForCausalLM": "modeling_gatenorm.GateNormForCausalLM",
}
CACHE_CAN_SKIP_LAYERS = hasattr(cache_utils, "DummyLayer")


class NoAttention(torch.nn.Module):
    """Stands where attention was removed: no parameters, and zero for every position."""

    def __init__(self, layer_idx: int):
        super().__init__()
        self.layer_idx = layer_idx

    def forward(self, hidden_states: torch.Tensor, past_key_values=None, **kwargs):
        if past_key_values is not None and not CACHE_CAN_SKIP_LAYERS:
            batch, tokens, _ = hidden_states.shape
            placeholder = hidden_states.new_zeros(batch, 1, tokens, 1)
            position = {"cache_position": kwargs.get("cache_position")}
            past_key_values.update(placeholder, placeholder, self.layer_idx, position)
        return torch.zeros_like(hidden_states), None


class Block(dict):
    """A JSON object whose keys are attributes too: vLLM reads `config.block_configs[i].attention.no_op`."""

    def __getattr__(self, key):
        try:
            return self[key]
        except KeyError:
            raise AttributeError(key) from None


class PrunedConfig:
    """What a pruned model's config has beyond its stock class (mixed in before it)."""

    model_type = MODEL_TYPE

    def __post_init__(self, gatenorm=None, block_configs=(), **kwargs):
        # Without arguments, as older versions of transformers ask a class for its defaults, nothing is pruned.
        self.gatenorm = gatenorm or {"pruned_layers": []}
        self.block_configs = [
            Block({part: Block(value) for part, value in block.items()}) for block in block_configs
        ]
        if self.rope_parameters:  # complete; the two older keys are there for other engines
            kwargs.pop("rope_theta", None)
            kwargs.pop("rope_scaling", None)
        super().__post_init__(**kwargs)
        if set(self.gatenorm["pruned_layers"]) >= set(range(self.num_hidden_layers)):
            raise ValueError("config.json: gatenorm.pruned_layers names every layer; one must keep attention")

    @property
    def kv_sharing_modes(self) -> list[str | None]:
        """Layers marked "reuse" get no memory in the caches of transformers."""
        pruned = self.gatenorm["pruned_layers"]
        return ["reuse" if layer in pruned else None for layer in range(self.num_hidden_layers)]

    def to_dict(self) -> dict:
        """As on disk: saving a model changes neither its type nor how RoPE is written for each engine."""
        rope = self.rope_parameters
        scaling = None
        if rope["rope_type"] != "default":
            # mlx-lm reads "type". With the true "rope_type", AutoTokenizer fails in transformers 5.18 and later.
            scaling = {**rope, "type": rope["rope_type"], "rope_type": "default"}
        return {
            **super().to_dict(),
            "architectures": [ARCHITECTURE],
            "auto_map": AUTO_MAP,
            "rope_theta": rope["rope_theta"],
            "rope_scaling": scaling,
        }

    def save_pretrained(self, save_directory, **kwargs):
        super().save_pretrained(save_directory, **kwargs)
        copy = os.path.join(save_directory, os.path.basename(__file__))
        if not (os.path.exists(copy) and os.path.samefile(__file__, copy)):
            shutil.copyfile(__file__, copy)

    def __reduce__(self):  # the class is made at run time, so that pickle cannot find it by its name
        return _empty_config, (self.gatenorm["model_type"],), self.__dict__


class PrunedModel:
    """What a pruned model does beyond its stock class (mixed in before it)."""

    def __init__(self, config, *args, **kwargs):
        super().__init__(config, *args, **kwargs)
        for index in config.gatenorm["pruned_layers"]:
            layer = self.base_model.layers[index]
            layer.self_attn = NoAttention(index)
            layer.input_layernorm = torch.nn.Identity()


def _pruned(stock: type, extra: type) -> type:
    """The subclass under the stock class's name and module, by which transformers knows what it can do with it."""
    for made in stock.__subclasses__():
        if made.__bases__ == (extra, stock):
            return made
    return type(stock.__name__, (extra, stock), {"__module__": stock.__module__})


def _config_class(model_type: str) -> type:
    return _pruned(transformers.CONFIG_MAPPING[model_type], PrunedConfig)


def _model_class(config: PrunedConfig) -> type:
    return _pruned(getattr(transformers, config.gatenorm["architecture"]), PrunedModel)


def _empty_config(model_type: str) -> PrunedConfig:
    cls = _config_class(model_type)
    return cls.__new__(cls)


class GateNormConfig(PreTrainedConfig):
    """What `auto_map` names for AutoConfig: reads config.json as the source model's own config class."""

    model_type = MODEL_TYPE

    @classmethod
    def from_dict(cls, config_dict: dict, **kwargs):
        return _config_class(config_dict["gatenorm"]["model_type"]).from_dict(config_dict, **kwargs)


class GateNormForCausalLM:
    """What `auto_map` names for AutoModelForCausalLM: hands over to the source architecture's stock class."""

    @classmethod
    def from_pretrained(cls, path, *args, config=None, **kwargs):
        config = config or GateNormConfig.from_pretrained(path)
        return _model_class(config).from_pretrained(path, *args, config=config, **kwargs)

    @classmethod
    def _from_config(cls, config, **kwargs):
        return _model_class(config)._from_config(config, **kwargs)

    @classmethod
    def register_for_auto_class(cls, auto_class=None):
        """Called by transformers; nothing to do, as the config saves `auto_map` and this file itself."""
