"""Run a model whose attention sublayers were partly removed, with the stock classes of transformers.

This file travels with checkpoints written by gatenorm-stream. `config.json` names it under `auto_map`, so

    AutoModelForCausalLM.from_pretrained(DIR, trust_remote_code=True)

runs it; a model with another head is loaded by the Auto class of that head. It opens no connection, starts no
process and reads nothing but the checkpoint that transformers hands it; when such a model is saved, this file is
copied beside the weights. Where the package gatenorm_stream is installed, `import gatenorm_stream.runtime` does the
same without trust_remote_code.

What it does. `config.json` is the source model's own config and says under `gatenorm` what was removed:

    "gatenorm": {
      "model_type": "llama",             the source's
      "architecture": "LlamaForCausalLM",
      "pruned_layers": [1, 6],
      "layers": "model.layers",          where that class keeps its decoder layers
      "attention": "self_attn",          what a layer calls its attention
      "input_norm": "input_layernorm"    and the norm that only attention reads; null if there is none
      "constants": true                  only if the checkpoint has a vector in the place of each attention
      "tokenizer": {                     only if tokenizer_config.json names GateNormTokenizer
        "model_type": "mistral",               the source's, by which transformers chooses a tokenizer's class
        "tokenizer_class": "LlamaTokenizer",   what its tokenizer_config.json said; null if nothing
        "of_config": null                      what its config.json said of the tokenizer's class
      }
    }

The model is the source architecture's stock class. In each pruned layer, `NoAttention` stands for attention and the
identity for the norm before it, so that attention adds nothing to the residual stream, or with "constants" the same
vector at every token. These layers have no projections and no key-value cache.

On disk the model type is one that no stock class claims, since a stock class would fill the missing projections
with random numbers. With `block_configs` it is `nemotron-nas`, and llama.cpp, mlx-lm and vLLM read the same
checkpoint.

From transformers 5.23 on, pruned layers have an empty cache; before, transformers counts the cached tokens layer by
layer, and each pruned layer holds two zeros per token.
"""

import os
import shutil
import threading
from contextlib import contextmanager

import torch
import transformers
from transformers import PretrainedConfig, cache_utils
from transformers.models.auto import tokenization_auto

MODEL_TYPE = "gatenorm"
CACHE_ARGUMENTS = ("past_key_values", "layer_past", "past_key_value")
CHOOSING_A_TOKENIZER = threading.RLock()
CACHE_CAN_SKIP_LAYERS = hasattr(cache_utils, "DummyLayer")


class NoAttention(torch.nn.Module):
    """Stands where attention was removed: zero for every position, or with `width` a constant vector."""

    def __init__(self, layer_idx: int, is_sliding: bool, width: int | None = None):
        super().__init__()
        self.constant = None if width is None else torch.nn.Parameter(torch.zeros(width))
        self.layer_idx = layer_idx
        self.is_sliding = is_sliding  # older layers choose the rotary embedding by it

    def forward(self, hidden_states: torch.Tensor, *args, **kwargs):
        if not CACHE_CAN_SKIP_LAYERS:
            cache = next((kwargs[name] for name in CACHE_ARGUMENTS if kwargs.get(name) is not None), None)
            if cache is not None:
                batch, tokens, _ = hidden_states.shape
                placeholder = hidden_states.new_zeros(batch, 1, tokens, 1)
                position = {"cache_position": kwargs.get("cache_position")}
                cache.update(placeholder, placeholder, self.layer_idx, position)
        output = torch.zeros_like(hidden_states)
        return (output if self.constant is None else output + self.constant.to(output.dtype)), None


class Block(dict):
    """A JSON object whose keys are attributes too: vLLM reads `config.block_configs[i].attention.no_op`."""

    def __getattr__(self, key):
        try:
            return self[key]
        except KeyError:
            raise AttributeError(key) from None


class PrunedConfig:
    """What a pruned model's config has beyond its stock class (mixed in before it).

    `gatenorm` is that object of config.json, `on_disk` what else it has in place of the source's own or beyond it.
    """

    gatenorm = None
    on_disk = None

    @classmethod
    def from_dict(cls, config_dict: dict, **kwargs):
        if "gatenorm" in config_dict:
            return GateNormConfig.from_dict(config_dict, **kwargs)
        return super().from_dict(config_dict, **kwargs)

    def to_dict(self) -> dict:
        """As on disk: saving a model changes neither its type nor how RoPE is written for each engine."""
        stock = super().to_dict()
        if self.gatenorm is None:  # made without arguments, by which transformers learns a class's defaults
            return stock
        stock.pop("on_disk", None)
        for part in (stock, stock.get("text_config") or {}):
            part.pop("kv_sharing_modes", None)
        rope = stock.get("rope_parameters")
        flat = _flat_rope(rope) if rope and hasattr(self, "block_configs") else {}
        return {**stock, **flat, **self.on_disk, "gatenorm": self.gatenorm}

    def to_diff_dict(self) -> dict:
        return self.to_dict()

    def save_pretrained(self, save_directory, **kwargs):
        super().save_pretrained(save_directory, **kwargs)
        copy = os.path.join(save_directory, os.path.basename(__file__))
        if not (os.path.exists(copy) and os.path.samefile(__file__, copy)):
            shutil.copyfile(__file__, copy)

    def __reduce__(self):  # the class is made at run time, so that pickle cannot find it by its name
        return _empty_config, (self.gatenorm, self.model_type), self.__dict__


class PrunedModel:
    """What a pruned model does beyond its stock class (mixed in before it)."""

    def __init__(self, config, *args, **kwargs):
        super().__init__(config, *args, **kwargs)
        removed = config.gatenorm
        base, _, within_base = removed["layers"].partition(".")
        whole = hasattr(self, base)
        layers = self.get_submodule(removed["layers"]) if whole else self.base_model.get_submodule(within_base)
        width = config.get_text_config().hidden_size if removed.get("constants") else None
        for index in removed["pruned_layers"]:
            attention = getattr(layers[index], removed["attention"])
            replacement = NoAttention(index, getattr(attention, "is_sliding", False), width)
            setattr(layers[index], removed["attention"], replacement)
            if removed["input_norm"]:
                setattr(layers[index], removed["input_norm"], torch.nn.Identity())


def _flat_rope(rope: dict) -> dict:
    """`rope_parameters` in the older keys too.

    mlx-lm reads "type"; with the true "rope_type", AutoTokenizer fails in transformers 5.18 and later.
    """
    scaling = None
    if rope["rope_type"] != "default":
        scaling = {**rope, "type": rope["rope_type"], "rope_type": "default"}
    return {"rope_theta": rope["rope_theta"], "rope_scaling": scaling}


def _without_flat_rope(config: dict) -> dict:
    """For transformers: the form that its version reads, where config.json has both."""
    rope = config["rope_parameters"]
    if int(transformers.__version__.split(".")[0]) >= 5:
        return {key: value for key, value in config.items() if key not in ("rope_theta", "rope_scaling")}
    scaling = None if rope["rope_type"] == "default" else {k: v for k, v in rope.items() if k != "rope_theta"}
    return {**config, "rope_scaling": scaling}


def _subclass(stock: type, extra: type, name: str, **attributes) -> type:
    """In the stock class's module, by which transformers knows what it can do with it."""
    for made in stock.__subclasses__():
        if made.__bases__ == (extra, stock) and attributes.items() <= vars(made).items():
            return made
    return type(name, (extra, stock), {"__module__": stock.__module__, **attributes})


def _config_class(gatenorm: dict, model_type: str) -> type:
    stock = transformers.CONFIG_MAPPING[gatenorm["model_type"]]
    if hasattr(stock, "kv_sharing_modes"):
        raise ValueError(f"{stock.__name__} shares KV caches between layers: attention can't be left out of it")
    # not the stock name: an Auto class that does not know it refuses it, instead of building the stock model
    made = _subclass(stock, PrunedConfig, f"GateNorm{stock.__name__}", model_type=model_type)
    fitting = {auto: model for auto, model in HEADS.items() if gatenorm["architecture"].endswith(model.ends)}
    for auto, model in {**MODELS, **fitting}.items():
        getattr(transformers, auto)._model_mapping.register(made, model, exist_ok=True)
    return made


def _model_class(config: PrunedConfig) -> type:
    stock = getattr(transformers, config.gatenorm["architecture"])
    return _subclass(stock, PrunedModel, stock.__name__)


def _base_model_class(config: PrunedConfig) -> type:
    stock = transformers.MODEL_MAPPING[transformers.CONFIG_MAPPING[config.gatenorm["model_type"]]]
    return _subclass(stock, PrunedModel, stock.__name__)


def _empty_config(gatenorm: dict, model_type: str) -> PrunedConfig:
    cls = _config_class(gatenorm, model_type)
    return cls.__new__(cls)


class GateNormConfig(PretrainedConfig):
    """What `auto_map` names for AutoConfig: reads config.json as the source model's own config class.

    In memory the config has the source's model type, by which transformers chooses how weights are converted. Only
    with `block_configs` it keeps the one on disk, by which vLLM knows it.
    """

    model_type = MODEL_TYPE

    @classmethod
    def from_pretrained(cls, path, **kwargs):
        config, kwargs = cls.get_config_dict(path, **kwargs)
        return cls.from_dict(config, **kwargs)

    @classmethod
    def from_dict(cls, config_dict: dict, **kwargs):
        given = dict(config_dict)
        gatenorm = given.pop("gatenorm")
        on_disk = {key: given[key] for key in ("model_type", "architectures", "auto_map") if key in given}
        model_type = gatenorm["model_type"]
        if blocks := given.pop("block_configs", None):
            on_disk["block_configs"] = [Block({part: Block(b) for part, b in block.items()}) for block in blocks]
            model_type = given["model_type"]
            given = _without_flat_rope(given)
        given["model_type"] = model_type
        made = _config_class(gatenorm, model_type).from_dict(given, **kwargs)
        config = made[0] if isinstance(made, tuple) else made
        config.gatenorm, config.on_disk = gatenorm, on_disk
        if blocks:
            config.block_configs = on_disk["block_configs"]
        text = config.get_text_config()
        pruned, layers = set(gatenorm["pruned_layers"]), range(text.num_hidden_layers)
        if not pruned < set(layers):
            raise ValueError(f"config.json: gatenorm.pruned_layers must name some of {len(layers)} layers, not all")
        # the caches of transformers give no memory to layers marked "reuse"
        text.kv_sharing_modes = ["reuse" if layer in pruned else None for layer in layers]
        return made


class GateNormForCausalLM:
    """What `auto_map` names for the model: hands over to the source architecture's stock class.

    It names no `config_class`: transformers 5.17 refuses one whose name is not that of the config it just made.
    """

    ends = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")

    @classmethod
    def stock(cls, config):
        """The class that the checkpoint holds; another head than its own would be made of random numbers."""
        architecture = config.gatenorm["architecture"]
        if not architecture.endswith(cls.ends):
            raise ValueError(
                f"this checkpoint holds a {architecture}, not one of {', '.join(cls.ends)}; load it by the Auto "
                f"class that auto_map in its config.json names"
            )
        return _model_class(config)

    @classmethod
    def from_pretrained(cls, path, *args, config=None, **kwargs):
        config = config or GateNormConfig.from_pretrained(path)
        return cls.stock(config).from_pretrained(path, *args, config=config, **kwargs)

    @classmethod
    def _from_config(cls, config, **kwargs):
        return cls.stock(config)._from_config(config, **kwargs)

    @classmethod
    def register_for_auto_class(cls, auto_class=None):
        """Called by transformers; nothing to do, as the config saves `auto_map` and this file itself."""


class GateNormForSequenceClassification(GateNormForCausalLM):
    """A classifier or reward model."""

    ends = ("ForSequenceClassification",)


class GateNormForTokenClassification(GateNormForCausalLM):
    """A classifier of each token."""

    ends = ("ForTokenClassification",)


class GateNormForQuestionAnswering(GateNormForCausalLM):
    """It marks where an answer stands."""

    ends = ("ForQuestionAnswering",)


class GateNormModel(GateNormForCausalLM):
    """Any of them without its head."""

    stock = staticmethod(_base_model_class)


MODELS = {
    "AutoModel": GateNormModel,
    "AutoModelForCausalLM": GateNormForCausalLM,
    "AutoModelForImageTextToText": GateNormForCausalLM,
}
HEADS = {
    "AutoModelForSequenceClassification": GateNormForSequenceClassification,
    "AutoModelForTokenClassification": GateNormForTokenClassification,
    "AutoModelForQuestionAnswering": GateNormForQuestionAnswering,
}
"""Which Auto class builds which; these only a checkpoint with that head."""


class GateNormTokenizer:
    """What `auto_map` of tokenizer_config.json names: hands over to the class that the source's tokenizer has.

    transformers chooses it by the model type, in each release by other rules, and the output's type is none that it
    knows. So AutoTokenizer is asked again, with the source's.
    """

    @classmethod
    def from_pretrained(cls, path, *args, trust_remote_code=None, **kwargs):
        config_dict, _ = PretrainedConfig.get_config_dict(path, **kwargs)
        source = config_dict["gatenorm"]["tokenizer"]
        config = transformers.CONFIG_MAPPING[source["model_type"]]()
        config.tokenizer_class = source["of_config"]
        load = transformers.AutoTokenizer.from_pretrained
        with _tokenizer_config_of_source(path, source["tokenizer_class"]):
            return load(path, *args, config=config, trust_remote_code=False, **kwargs)

    @classmethod
    def register_for_auto_class(cls, auto_class=None):
        """Called by transformers; nothing to do, as this file is saved with the model."""


@contextmanager
def _tokenizer_config_of_source(path, tokenizer_class):
    """In `path`, AutoTokenizer finds what the source's tokenizer_config.json said of the class."""
    stock = tokenization_auto.get_tokenizer_config

    def of_source(asked, *args, **kwargs):
        found = stock(asked, *args, **kwargs)
        if asked != path:
            return found
        left = {key: value for key, value in found.items() if key not in ("auto_map", "tokenizer_class")}
        return {**left, "tokenizer_class": tokenizer_class} if tokenizer_class else left

    with CHOOSING_A_TOKENIZER:
        tokenization_auto.get_tokenizer_config = of_source
        try:
            yield
        finally:
            tokenization_auto.get_tokenizer_config = stock
