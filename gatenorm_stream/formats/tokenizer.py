"""The source's tokenizer in an output, whose model type no release of transformers knows.

transformers 5 chooses the tokenizer's class by config.json's `model_type` first, and by `tokenizer_class` in
tokenizer_config.json only for some types. So an output says there which class the source has in transformers 5, for
whoever runs no remote code, and names a class of the file that travels along, which asks AutoTokenizer with the
source's model type: the class is then the source's in every release.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from gatenorm_stream.checkpoint.foreign_code import without_foreign_code
from gatenorm_stream.checkpoint.json_text import MAX_JSON_BYTES
from gatenorm_stream.checkpoint.safetensors import json_object
from gatenorm_stream.errors import CheckpointError, HubError
from gatenorm_stream.families.model import Model
from gatenorm_stream.sources.source import Source, read_whole

TOKENIZER_CONFIG = "tokenizer_config.json"
TOKENIZER_JSON = "tokenizer.json"
TOKENIZER_FILES = (TOKENIZER_CONFIG, TOKENIZER_JSON, "tokenizer.model", "vocab.json", "tekken.json")
AUTO_MAP = {"AutoTokenizer": [None, "modeling_gatenorm.GateNormTokenizer"]}
"""The second is the one that reads tokenizer.json ("fast")."""

QWEN_2 = "Qwen2Tokenizer"
AS_IT_IS = "PreTrainedTokenizerFast"
"""The class that does what tokenizer.json says and no more; transformers 5 calls it TokenizersBackend too."""
GENERIC = (AS_IT_IS, "PreTrainedTokenizer", "TokenizersBackend")
FORCED = {
    **dict.fromkeys(("mistral", "mistral3", "ministral", "ministral3", "mixtral"), AS_IT_IS),
    **dict.fromkeys(("granite", "granitemoe", "granitemoehybrid"), AS_IT_IS),
    **dict.fromkeys(("glm", "glm4", "jamba", "nemotron", "olmo2", "olmo3", "phi3", "phimoe", "stablelm"), AS_IT_IS),
    **dict.fromkeys(("llava", "llava_next", "smolvlm", "vipllava"), AS_IT_IS),
    "qwen2": QWEN_2,
}
"""By model type, the class that transformers 5 takes whatever tokenizer_config.json says."""
REGISTERED = {
    **dict.fromkeys(("aya_vision", "cohere", "cohere2"), "CohereTokenizer"),
    **dict.fromkeys(("gemma", "gemma2", "gemma3", "gemma3_text"), "GemmaTokenizer"),
    **dict.fromkeys(("gpt2", "gptj", "phi", "starcoder2"), "GPT2Tokenizer"),
    **dict.fromkeys(("gpt_neox", "olmo", "olmoe"), "GPTNeoXTokenizer"),
    "idefics2": "LlamaTokenizer",
    **dict.fromkeys(("internvl", "lighton_ocr", "qwen2_5_vl", "qwen2_moe", "qwen2_vl", "qwen3"), QWEN_2),
    **dict.fromkeys(("qwen3_moe", "qwen3_next", "qwen3_vl", "qwen3_vl_moe"), QWEN_2),
}
"""By model type, the class that transformers 5 takes where tokenizer_config.json names none.

Of types in neither table, the class named is taken, or else the one that reads tokenizer.json as it is.
"""
FORCED_BEFORE = ("deepseek_v2", "deepseek_v3")
"""Types for which transformers 5.4 to 5.21 take AS_IT_IS, and later ones the class named."""
MISTRAL_COMMON = ("mistral", "mistral3", "ministral", "ministral3", "mixtral")
"""Types whose tekken.json is read by mistral-common, if that is installed."""
BYTE_LEVEL = b'"ByteLevel"'

OLDER = (
    "transformers 4, and 5 below {release}, may read text otherwise than for the source, except with "
    "trust_remote_code=True, since their rules differ"
)
TEKKEN = "mistral-common reads tekken.json only where AutoTokenizer is given trust_remote_code=True"
FIXED_REGEX = (
    "tokenizer_config.json asks for fix_mistral_regex, which transformers does for model_type mistral alone: the "
    "output's text is cut as without it, except with trust_remote_code=True"
)


@dataclass(frozen=True)
class SourceTokenizer:
    """What the source says of its tokenizer: `config` is its tokenizer_config.json, empty if there is none.

    `declared` is the class that it names, there or in config.json; `taken_out` is code of other repositories.
    """

    model_type: str
    config: Mapping[str, Any]
    declared: str | None
    byte_level_llama: bool
    taken_out: tuple[str, ...] = ()

    @property
    def chosen(self) -> str:
        """The class that transformers takes for the source, from `settled` on."""
        forced = FORCED.get(self.model_type) or (AS_IT_IS if self.byte_level_llama else None)
        if forced == AS_IT_IS and self.declared in GENERIC:
            return self.declared
        return forced or self.declared or REGISTERED.get(self.model_type, AS_IT_IS)

    @property
    def settled(self) -> str:
        """The release of transformers from which on the tables hold."""
        return "5.22" if self.model_type in FORCED_BEFORE else "5.17"

    @property
    def is_the_same_in_older(self) -> bool:
        """Whether older releases, each by rules of its own, take `chosen` for the source too."""
        if self.declared in GENERIC:
            return self.chosen in GENERIC
        registered = REGISTERED.get(self.model_type) or FORCED.get(self.model_type, AS_IT_IS)
        named = (self.declared or registered).removesuffix("Fast")
        return named == registered == self.chosen.removesuffix("Fast") and registered != AS_IT_IS


def tokenizer_files(model: Model) -> dict[str, str]:
    """The tokenizer_config.json by which an output's tokenizer is the source's; none where that is so anyway."""
    source = _read(model)
    if source is None:
        return {}
    config: dict[str, Any] = {**source.config, "auto_map": AUTO_MAP}
    config["tokenizer_class"] = source.chosen
    if source.chosen == AS_IT_IS:
        config.setdefault("model_input_names", ["input_ids", "attention_mask"])  # in transformers 4 it has a third
    return {TOKENIZER_CONFIG: json.dumps(config, indent=2, ensure_ascii=False) + "\n"}


def class_in_output(model: Model) -> str | None:
    """What an output's tokenizer_config.json names; None where it is the source's own."""
    source = _read(model)
    return source.chosen if source else None


def foreign_tokenizer(model: Model) -> tuple[tuple[str, str], ...]:
    """The file, and what of another repository it named, where it is written anew."""
    source = _read(model)
    return tuple((TOKENIZER_CONFIG, what) for what in source.taken_out) if source else ()


def tokenizer_origin(model: Model) -> dict[str, Any]:
    """What the travelling file must know, for the `gatenorm` object of config.json; empty where none travels."""
    source = _read(model)
    if source is None:
        return {}
    told = {"model_type": source.model_type, "tokenizer_class": source.config.get("tokenizer_class")}
    return {"tokenizer": {**told, "of_config": model.config.get("tokenizer_class")}}


def tokenizer_cautions(model: Model) -> tuple[str, ...]:
    """What of the source's tokenizer an output can't say without remote code."""
    source = _read(model)
    if source is None:
        return ()
    mistral = source.model_type in MISTRAL_COMMON
    found = (
        (OLDER.format(release=source.settled), not source.is_the_same_in_older),
        (TEKKEN, mistral and "tekken.json" in model.checkpoint.source.names()),
        (FIXED_REGEX, mistral and bool(source.config.get("fix_mistral_regex"))),
    )
    return tuple(caution for caution, holds in found if holds)


def _read(model: Model) -> SourceTokenizer | None:
    named = model.config.get("tokenizer_class")
    model_type = str(model.config.get("model_type"))
    return _read_from(model.checkpoint.source, model_type, named if isinstance(named, str) else None)


@lru_cache(maxsize=1)  # plan, edit and layout ask alike, and on the Hub each reading is a request
def _read_from(source: Source, model_type: str, named: str | None) -> SourceTokenizer | None:
    """None if there is no tokenizer, its own code reads it, or transformers has no class for the model type, so
    that it does the same for one that it does not know. `named` is the class that config.json names.
    """
    names = source.names()
    if model_type not in {*FORCED, *REGISTERED, *FORCED_BEFORE} or not set(TOKENIZER_FILES) & set(names):
        return None
    try:
        config = json_object(source, TOKENIZER_CONFIG) if TOKENIZER_CONFIG in names else {}
    except HubError:
        raise
    except CheckpointError:  # whatever it is, it travels as it is
        return None
    cleaned = without_foreign_code(config)
    config = cleaned.value
    if "auto_map" in config:
        return None
    declared = config.get("tokenizer_class") or named
    declared = declared if isinstance(declared, str) else None
    llama = declared is not None and declared.removesuffix("Fast") == "LlamaTokenizer"
    return SourceTokenizer(model_type, config, declared, llama and _is_byte_level(source), cleaned.taken_out)


def _is_byte_level(source: Source) -> bool:
    if TOKENIZER_JSON not in source.names():
        return False
    file = source.open(TOKENIZER_JSON)
    return file.size <= MAX_JSON_BYTES and BYTE_LEVEL in read_whole(file)
