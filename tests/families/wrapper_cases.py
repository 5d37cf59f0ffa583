"""Tiny multimodal models of stock classes, their text part of a known family, and images for them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch

from gatenorm_stream.families.wrappers import WRAPPERS
from tests.families.cases import ALTERNATING, BASE, EXPERTS, MIXTURE, Case

IMAGE = 127
RESERVED = (124, 125, 126, IMAGE)
"""Tokens that stand for images and the like."""


@dataclass(frozen=True)
class WrapperCase(Case):
    """An image takes `patches` tokens, and is given as `pixels`, of this shape, and `beside` them.

    `kinds` is what the model calls the input that tells images from text, if it has one.
    """

    wrapper: str = ""
    auto: str = "AutoModelForImageTextToText"
    patches: int = 4
    pixels: tuple[int, ...] = (1, 3, 16, 16)
    beside: dict[str, torch.Tensor] = field(default_factory=dict, compare=False)
    kinds: str = ""

    def __str__(self) -> str:
        return f"{self.wrapper}-{self.family}"

    def inputs(self, image: bool) -> dict[str, torch.Tensor]:
        """A prompt of text, or of text around an image."""
        generator = torch.Generator().manual_seed(1)
        tokens = torch.randint(3, RESERVED[0], (1, 9 + self.patches), generator=generator)
        if not image:
            return {"input_ids": tokens}
        tokens[0, 3 : 3 + self.patches] = IMAGE
        kinds = {self.kinds: (tokens == IMAGE).long()} if self.kinds else {}
        pixels = torch.randn(self.pixels, generator=generator)
        return {"input_ids": tokens, "pixel_values": pixels, **self.beside, **kinds}


def _case(wrapper: str, stem: str, family: str, text: dict[str, Any], vision: dict[str, Any], **rest: Any):
    own = {f: rest.pop(f) for f in WrapperCase.__dataclass_fields__ if f in rest}
    text = {**BASE, "model_type": family, **text}
    options = {"text_config": text, "vision_config": vision, "tie_word_embeddings": False, **rest}
    family = WRAPPERS[wrapper].family or family
    model = WRAPPERS[wrapper].architecture
    return WrapperCase(family, f"{stem}Config", model, options, wrapper=wrapper, **own)


VISION = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 16,
    "patch_size": 4,
}
CLIP = {**VISION, "model_type": "clip_vision_model"}
SIGLIP = {**VISION, "model_type": "siglip_vision_model", "vision_use_head": False}
SIGLIP_2 = {**SIGLIP, "model_type": "siglip2_vision_model", "num_patches": 16}
PIXTRAL = {**VISION, "model_type": "pixtral", "head_dim": 16}
QWEN = {"depth": 2, "num_heads": 2, "patch_size": 4, "spatial_merge_size": 2, "temporal_patch_size": 2}
QWEN_2 = {**QWEN, "embed_dim": 32, "mlp_ratio": 2, "hidden_size": 64}
QWEN_2_5 = {
    **QWEN,
    "hidden_size": 32,
    "intermediate_size": 48,
    "out_hidden_size": 64,
    "window_size": 8,
    "fullatt_block_indexes": [1],
}
QWEN_3 = {
    **QWEN,
    "hidden_size": 32,
    "intermediate_size": 48,
    "out_hidden_size": 64,
    "num_position_embeddings": 16,
    "deepstack_visual_indexes": [0],
}
PERCEIVER = {
    "model_type": "idefics2_perceiver",
    "hidden_size": 64,
    "resampler_n_latents": 4,
    "resampler_depth": 1,
    "resampler_n_heads": 2,
    "resampler_head_dim": 16,
    "num_key_value_heads": 1,
}
LLAMA_4 = {
    "head_dim": 16,
    **MIXTURE,
    "num_experts_per_tok": 1,
    "intermediate_size_mlp": 96,
    "attention_chunk_size": 8,
    "use_qk_norm": False,
}
LLAMA_4_VISION = {
    **VISION,
    "model_type": "llama4_vision_model",
    "intermediate_size": 128,
    "vision_output_dim": 32,
    "projector_input_dim": 32,
    "projector_output_dim": 32,
}
MROPE = {"rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0, "mrope_section": [2, 3, 3]}}
FULL = {"sliding_window": None}
INDEX, ID = {"image_token_index": IMAGE}, {"image_token_id": IMAGE}
QWEN_IDS = {**ID, "video_token_id": 126, "vision_start_token_id": 125, "vision_end_token_id": 124}
SIZES = {"beside": {"image_sizes": torch.tensor([[16, 16]])}}
ONE_OF_ONE = {"pixels": (1, 1, 3, 16, 16)}
TILED = {**SIZES, "pixels": (1, 2, 3, 16, 16), "patches": 36, "image_grid_pinpoints": [[16, 16]]}
"""The whole, and one tile of four rows, each with an end."""
FLAT = {"pixels": (16, 96), "beside": {"image_grid_thw": torch.tensor([[1, 4, 4]])}, "kinds": "mm_token_type_ids"}
NAFLEX = {"spatial_shapes": torch.tensor([[4, 4]]), "pixel_attention_mask": torch.ones(1, 16, dtype=torch.long)}

CASES = (
    _case("llava", "Llava", "llama", {}, CLIP, **INDEX, patches=16),
    _case(
        "llava",
        "Llava",
        "mistral",
        FULL,
        PIXTRAL,
        **INDEX,
        **SIZES,
        patches=16,
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
    ),
    _case("llava_next", "LlavaNext", "mistral", FULL, CLIP, **INDEX, **TILED),
    _case("llava_onevision", "LlavaOnevision", "qwen2", {}, SIGLIP, **INDEX, **TILED, video_token_index=126),
    _case("vipllava", "VipLlava", "llama", {}, CLIP, **INDEX, patches=16, vision_feature_layer=[-2, -1]),
    _case("mistral3", "Mistral3", "mistral", FULL, PIXTRAL, **INDEX, **SIZES, spatial_merge_size=2),
    _case(
        "gemma3",
        "Gemma3",
        "gemma3_text",
        {"head_dim": 16, **ALTERNATING},
        SIGLIP,
        **INDEX,
        mm_tokens_per_image=4,
        kinds="token_type_ids",
    ),
    _case(
        "paligemma",
        "PaliGemma",
        "gemma",
        {"head_dim": 24},
        {**SIGLIP, "projection_dim": 64},
        **INDEX,
        patches=16,
        projection_dim=64,
        kinds="token_type_ids",
    ),
    _case(
        "internvl",
        "InternVL",
        "qwen2",
        {},
        {**VISION, "model_type": "internvl_vision", "image_size": [16, 16], "patch_size": [4, 4]},
        **ID,
    ),
    _case(
        "idefics2",
        "Idefics2",
        "mistral",
        FULL,
        {**VISION, "model_type": "idefics2_vision"},
        **ID,
        **ONE_OF_ONE,
        perceiver_config=PERCEIVER,
    ),
    _case(
        "idefics3",
        "Idefics3",
        "llama",
        {},
        {**VISION, "model_type": "idefics3_vision"},
        **ID,
        **ONE_OF_ONE,
        scale_factor=2,
    ),
    _case(
        "smolvlm",
        "SmolVLM",
        "llama",
        {},
        {**VISION, "model_type": "smolvlm_vision"},
        **ID,
        **ONE_OF_ONE,
        scale_factor=2,
    ),
    _case("aya_vision", "AyaVision", "cohere2", ALTERNATING, SIGLIP, **INDEX, downsample_factor=2, kept_norm=True),
    _case(
        "cohere2_vision",
        "Cohere2Vision",
        "cohere2",
        ALTERNATING,
        SIGLIP,
        **ID,
        downsample_factor=2,
        alignment_intermediate_size=64,
        kept_norm=True,
    ),
    _case("lighton_ocr", "LightOnOcr", "qwen3", {"head_dim": 16}, PIXTRAL, **ID, **SIZES, spatial_merge_size=2),
    _case("llama4", "Llama4", "llama4_text", LLAMA_4, LLAMA_4_VISION, **INDEX),
    _case(
        "lfm2_vl",
        "Lfm2Vl",
        "lfm2",
        {"layer_types": ["conv", "full_attention", "full_attention", "conv"]},
        SIGLIP_2,
        **ID,
        projector_hidden_size=48,
        pixels=(1, 16, 48),
        beside=NAFLEX,
        attention=(1, 2),
    ),
    _case("qwen2_vl", "Qwen2VL", "qwen2_vl_text", MROPE, QWEN_2, **QWEN_IDS, **FLAT),
    _case("qwen2_5_vl", "Qwen2_5_VL", "qwen2_5_vl_text", MROPE, QWEN_2_5, **QWEN_IDS, **FLAT),
    _case("qwen3_vl", "Qwen3VL", "qwen3_vl_text", {"head_dim": 16, **MROPE}, QWEN_3, **QWEN_IDS, **FLAT),
    _case(
        "qwen3_vl_moe",
        "Qwen3VLMoe",
        "qwen3_vl_moe_text",
        {"head_dim": 16, **EXPERTS, **MROPE},
        QWEN_3,
        **QWEN_IDS,
        **FLAT,
    ),
)
