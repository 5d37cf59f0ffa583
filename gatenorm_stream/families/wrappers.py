"""The multimodal models of transformers whose language model runs pruned.

A new one is a row here and a case in tests/families/wrapper_cases.py.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Wrapper:
    """`language_model` is the path, within the model's class, of the module that keeps the decoder layers.

    `family` is the model type of the row that serves the language model, where its own type has no row.
    """

    name: str
    model_type: str
    architecture: str
    language_model: str = "model.language_model"
    family: str | None = None


WRAPPERS = {
    wrapper.model_type: wrapper
    for wrapper in (
        Wrapper("Aya Vision", "aya_vision", "AyaVisionForConditionalGeneration"),
        Wrapper("Command A Vision", "cohere2_vision", "Cohere2VisionForConditionalGeneration"),
        Wrapper("Gemma 3", "gemma3", "Gemma3ForConditionalGeneration"),
        Wrapper("Idefics 2", "idefics2", "Idefics2ForConditionalGeneration", "model.text_model"),
        Wrapper("Idefics 3", "idefics3", "Idefics3ForConditionalGeneration", "model.text_model"),
        Wrapper("InternVL", "internvl", "InternVLForConditionalGeneration"),
        Wrapper("LFM 2 VL", "lfm2_vl", "Lfm2VlForConditionalGeneration"),
        Wrapper("LightOnOCR", "lighton_ocr", "LightOnOcrForConditionalGeneration"),
        Wrapper("Llama 4", "llama4", "Llama4ForConditionalGeneration", "language_model.model"),
        Wrapper("LLaVA, Pixtral", "llava", "LlavaForConditionalGeneration"),
        Wrapper("LLaVA-NeXT", "llava_next", "LlavaNextForConditionalGeneration"),
        Wrapper("LLaVA-OneVision", "llava_onevision", "LlavaOnevisionForConditionalGeneration"),
        Wrapper("Mistral Small 3.1", "mistral3", "Mistral3ForConditionalGeneration"),
        Wrapper("PaliGemma", "paligemma", "PaliGemmaForConditionalGeneration"),
        Wrapper("Qwen 2 VL", "qwen2_vl", "Qwen2VLForConditionalGeneration", family="qwen2"),
        Wrapper("Qwen 2.5 VL", "qwen2_5_vl", "Qwen2_5_VLForConditionalGeneration", family="qwen2"),
        Wrapper("Qwen 3 VL", "qwen3_vl", "Qwen3VLForConditionalGeneration", family="qwen3"),
        Wrapper("Qwen 3 VL MoE", "qwen3_vl_moe", "Qwen3VLMoeForConditionalGeneration", family="qwen3_moe"),
        Wrapper("SmolVLM", "smolvlm", "SmolVLMForConditionalGeneration", "model.text_model"),
        Wrapper("VipLLaVA", "vipllava", "VipLlavaForConditionalGeneration"),
    )
}
"""By model type."""
