"""The inference engines that outputs are meant for."""

from __future__ import annotations

from enum import StrEnum


class Engine(StrEnum):
    TRANSFORMERS = "transformers"
    LLAMA_CPP = "llama.cpp"
    MLX_LM = "mlx-lm"
    VLLM = "vllm"
    SGLANG = "sglang"


ENGINES = tuple(engine.value for engine in Engine)
EVERY_ENGINE = frozenset(ENGINES)
