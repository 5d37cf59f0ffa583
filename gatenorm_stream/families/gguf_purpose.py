"""What a GGUF file is for, where it is no language model: in words, with what to do."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

ARCHITECTURE = "general.architecture"
TYPE = "general.type"
ADAPTER = "is an adapter (LoRA), not a model; merge it into its model first (llama.cpp: llama-export-lora)"
PROJECTOR = (
    "is the image or sound part of a multimodal model (mmproj), not its language model; give the GGUF file of "
    "that, and keep this one beside the output as it is"
)
PURPOSES = {
    "adapter": ADAPTER,
    "mmproj": PROJECTOR,
    "imatrix": "is an importance matrix, not a model; give the model that it was made for",
    "vocab": "holds a vocabulary and no weights; give the file of the model",
    "controlvector": "is a control vector, not a model; give the model that it steers",
}
ARCHITECTURES = {"clip": PROJECTOR, "controlvector": PURPOSES["controlvector"], "imatrix": PURPOSES["imatrix"]}


def no_language_model(text: Mapping[str, Any], names: Iterable[str]) -> str | None:
    """None for a language model, and for what is not known. `text` are the metadata, `names` of the tensors."""
    held = list(names)
    if words := PURPOSES.get(str(text.get(TYPE))) or ARCHITECTURES.get(str(text.get(ARCHITECTURE))):
        return words
    if "adapter.type" in text or (held and all(name.endswith((".lora_a", ".lora_b")) for name in held)):
        return ADAPTER
    if held and all(name.endswith((".in_sum2", ".counts")) for name in held):
        return PURPOSES["imatrix"]
    if not held:
        return PURPOSES["vocab"]
    architecture = text.get(ARCHITECTURE)
    if isinstance(architecture, str) and f"{architecture}.block_count" not in text:
        layers = any(name.startswith("blk.") for name in held)
        return None if layers else f"is of the architecture {architecture}, which is no language model of llama.cpp"
    return None
