"""mlx-lm on the CPU, in float32."""

from pathlib import Path

import mlx.core as mx
import mlx_lm
import numpy as np


class MlxLm:
    """A loaded checkpoint with its tokenizer."""

    def __init__(self, path: Path):
        # Without this setting, mlx-lm asks on a terminal whether to run the checkpoint's code.
        self.model, self.tokenizer = mlx_lm.load(str(path), tokenizer_config={"trust_remote_code": True})
        self.model.set_dtype(mx.float32)

    def logits(self, ids: list[int]) -> np.ndarray:
        """(tokens, vocabulary)"""
        return np.array(self.model(mx.array([ids]))[0])

    def logits_token_by_token(self, ids: list[int]) -> np.ndarray:
        """The same, each token fed alone, with what the caches hold of those before it."""
        caches = self.caches()
        return np.concatenate([np.array(self.model(mx.array([[id]]), cache=caches)[0]) for id in ids])

    def caches(self) -> list:
        return mlx_lm.models.cache.make_prompt_cache(self.model)

    def generate(self, prompt: str, tokens: int) -> str:
        return mlx_lm.generate(self.model, self.tokenizer, prompt=prompt, max_tokens=tokens)
