"""Which class of transformers a checkpoint is: a language model, the same with another head, or with none.

config.json says it under `architectures`. transformers itself goes by the Auto class that the user calls.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from gatenorm_stream.families.family import Config, Family
from gatenorm_stream.families.model import Model
from gatenorm_stream.families.wrappers import WRAPPERS

LANGUAGE_MODEL = "AutoModelForCausalLM"
IMAGES_TOO = "AutoModelForImageTextToText"
WITHOUT_HEAD = "AutoModel"
HEADS = {
    "ForSequenceClassification": "AutoModelForSequenceClassification",
    "ForTokenClassification": "AutoModelForTokenClassification",
    "ForQuestionAnswering": "AutoModelForQuestionAnswering",
}
"""By the end of a class's name, the Auto class that loads it."""
LANGUAGE_MODEL_ENDS = ("ForCausalLM", "LMHeadModel")
_NONE = ("cohere", "cohere2", "granite", "granitemoe", "granitemoehybrid", "lfm2", "llama4_text", "olmoe")
_SEQUENCES_ONLY = ("deepseek_v2", "gemma3_text", "jamba", "olmo", "olmo2", "olmo3", "phimoe")
_NO_ANSWERS = ("deepseek_v3", "gemma", "gemma2", "glm", "glm4", "gpt_oss", "phi", "phi3", "stablelm", "starcoder2")
MISSING = {
    "ForSequenceClassification": _NONE,
    "ForTokenClassification": (*_NONE, *_SEQUENCES_ONLY, "gptj"),
    "ForQuestionAnswering": (*_NONE, *_SEQUENCES_ONLY, *_NO_ANSWERS),
}
"""Model types of which transformers has no class with that head."""
STEMS = {"gemma3_text": "Gemma3Text", "llama4_text": "Llama4Text"}
"""What the names of the other classes begin with, where it is not the same as the language model's."""
UPSTREAMED = ("deepseek_v2", "deepseek_v3", "exaone4", "falcon", "jamba", "phi", "phi3", "phimoe", "stablelm")
"""Model types that ran by code beside the checkpoint before transformers had a class of the same name for them."""


@dataclass(frozen=True)
class ModelClass:
    """`name` is transformers' class, `auto` the Auto class that loads it with its head."""

    name: str
    auto: str

    @property
    def is_language_model(self) -> bool:
        return self.auto in (LANGUAGE_MODEL, IMAGES_TOO)


def class_of(model: Model) -> ModelClass | None:
    """None if `architectures` names a class that transformers has not for this model type."""
    if model.multimodal:
        wrapper = WRAPPERS.get(str(model.config.get("model_type")))
        named = named_class(model.config)
        known = wrapper is not None and named in (None, wrapper.architecture)
        return ModelClass(wrapper.architecture, IMAGES_TOO) if wrapper and known else None
    family, named = model.family, named_class(model.config)
    if named is None or named == family.architecture or named.endswith(LANGUAGE_MODEL_ENDS):
        return ModelClass(family.architecture, LANGUAGE_MODEL)
    return next((known for known in _other_classes(family) if known.name == named), None)


def named_class(config: Config) -> str | None:
    """The first of `architectures`."""
    named = config.get("architectures")
    first = named[0] if isinstance(named, list) and named else None
    return first if isinstance(first, str) else None


def own_classes(model: Model) -> tuple[str, ...]:
    """The classes of the checkpoint's own code that `auto_map` names in the place of transformers' models.

    Not those that transformers has taken over under the same name.
    """
    stock = {model.family.architecture, *(known.name for known in _other_classes(model.family))}
    taken_over = model.config.get("model_type") in UPSTREAMED
    return tuple(name for name in named_code(model.config) if not (taken_over and name.rpartition(".")[2] in stock))


def named_code(config: Config) -> tuple[str, ...]:
    """What `auto_map` names for models, each once: file.Class."""
    auto_map = config.get("auto_map")
    if not isinstance(auto_map, dict):
        return ()
    return tuple(sorted({str(ref) for auto, ref in auto_map.items() if str(auto).startswith("AutoModel")}))


def attends_both_ways(config: Config) -> bool:
    """Whether config.json has tokens attend to later ones too, as embedding models do."""
    return config.get("is_causal") is False or bool(config.get("use_bidirectional_attention"))


def _other_classes(family: Family) -> Iterator[ModelClass]:
    stem = family.architecture
    for end in LANGUAGE_MODEL_ENDS:
        stem = stem.removesuffix(end)
    stem = STEMS.get(family.model_type, stem)
    yield ModelClass(f"{stem}Model", WITHOUT_HEAD)
    for end, auto in HEADS.items():
        if family.model_type not in MISSING[end]:
            yield ModelClass(f"{stem}{end}", auto)
