"""The file that travels into an output so that transformers runs it, and what it reads in config.json."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

from gatenorm_stream.checkpoint.foreign_code import without_foreign_code
from gatenorm_stream.families.family import Family
from gatenorm_stream.families.model import Model
from gatenorm_stream.families.model_class import HEADS, IMAGES_TOO, LANGUAGE_MODEL, ModelClass, class_of
from gatenorm_stream.families.wrappers import WRAPPERS
from gatenorm_stream.formats.tokenizer import tokenizer_files, tokenizer_origin

RUNTIME_FILE = "modeling_gatenorm.py"
_MODULE = RUNTIME_FILE.removesuffix(".py")
BASE = {"AutoConfig": f"{_MODULE}.GateNormConfig", "AutoModel": f"{_MODULE}.GateNormModel"}
_FOR_CAUSAL_LM = f"{_MODULE}.GateNormForCausalLM"
PREPARING = ("AutoTokenizer", "AutoProcessor", "AutoImageProcessor", "AutoFeatureExtractor", "AutoVideoProcessor")


def travelling_files(model: Model) -> dict[str, str]:
    """Names and texts: what runs the model, and where it takes that, what says how to read its tokenizer."""
    return {RUNTIME_FILE: runtime_text(), **tokenizer_files(model)}


def runtime_text() -> str:
    """What outputs bring along to be run, as this release writes it."""
    return files("gatenorm_stream").joinpath("runtime", RUNTIME_FILE).read_text("utf-8")


def auto_map_of(model: Model, built: ModelClass) -> dict[str, Any]:
    """Which class of the travelling file each Auto class that fits the model builds.

    The source's own code that prepares inputs stays; that of another repository does not.
    """
    given = model.config.get("auto_map")
    given = without_foreign_code({"auto_map": given}).value.get("auto_map")
    kept = {auto: given[auto] for auto in PREPARING if auto in given} if isinstance(given, dict) else {}
    if built.auto == IMAGES_TOO:
        return {**kept, **BASE, LANGUAGE_MODEL: _FOR_CAUSAL_LM, IMAGES_TOO: _FOR_CAUSAL_LM}
    return {**kept, **BASE, built.auto: f"{_MODULE}.{architecture_of(built)}"}


def architecture_of(built: ModelClass) -> str:
    """That class, by its name in the travelling file."""
    if built.is_language_model:
        return "GateNormForCausalLM"
    return built.auto.replace("AutoModel", "GateNorm" if built.auto in HEADS.values() else "GateNormModel")


def removed(model: Model, dropped: tuple[int, ...], stock: Family, *, constants: bool = False) -> dict[str, Any]:
    """The `gatenorm` object of config.json: what the travelling file needs to leave attention out of `stock`.

    With `constants`, its module in the place of attention has one.
    """
    model_type, architecture, layers = stock.model_type, stock.architecture, stock.layers
    if (built := class_of(model)) and not built.is_language_model:
        architecture = built.name
    if model.multimodal:
        wrapper = WRAPPERS[model.config["model_type"]]
        model_type, architecture = wrapper.model_type, wrapper.architecture
        layers = f"{wrapper.language_model}.{stock.layers.rpartition('.')[2]}"
    return {
        "model_type": model_type,
        "architecture": architecture,
        "pruned_layers": list(dropped),
        "layers": layers,
        "attention": stock.attention,
        "input_norm": stock.input_norm,
        **({"constants": True} if constants else {}),
        **tokenizer_origin(model),
    }
