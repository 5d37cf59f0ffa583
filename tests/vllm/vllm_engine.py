"""vLLM on the CPU, one engine at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from vllm import LLM, SamplingParams
from vllm.distributed import cleanup_dist_env_and_memory

SETTINGS = {
    "dtype": "float32",
    "enforce_eager": True,
    "max_model_len": 128,
    "max_num_seqs": 4,
    "max_logprobs": -1,
    "enable_prefix_caching": False,
}


class Vllm:
    def __init__(self, llm: LLM):
        self._llm = llm

    def continued(self, prompt: list[int], new: int) -> tuple[list[int], np.ndarray]:
        """The prompt with its greedy continuation by `new` tokens, and log-probabilities after each but the last.

        Shapes (t,) and (t - 1, vocabulary). The last `new` - 1 rows were computed from the KV cache.
        """
        all_of_them = SamplingParams(
            temperature=0.0, max_tokens=new, ignore_eos=True, logprobs=-1, prompt_logprobs=-1, detokenize=False
        )
        answer = self._llm.generate({"prompt_token_ids": prompt}, all_of_them, use_tqdm=False)[0]
        rows = [*answer.prompt_logprobs[1:], *answer.outputs[0].logprobs]
        table = np.array([[row[token].logprob for token in range(len(row))] for row in rows])
        return [*prompt, *answer.outputs[0].token_ids], table

    def text(self, prompt: str, new: int) -> str:
        greedy = SamplingParams(temperature=0.0, max_tokens=new)
        return self._llm.generate(prompt, greedy, use_tqdm=False)[0].outputs[0].text

    def cache(self) -> dict[int, int]:
        """Bytes of KV cache that a token takes in each layer that has one, as vLLM allots them."""
        (specs,) = self._llm.collective_rpc("get_kv_cache_spec")
        bytes_a_token = {name: spec.page_size_bytes // spec.block_size for name, spec in specs.items()}
        return {int(next(filter(str.isdigit, name.split(".")))): size for name, size in bytes_a_token.items()}

    def cache_tokens(self) -> int:
        """How many tokens the KV cache holds, as vLLM reports it."""
        cache = self._llm.llm_engine.vllm_config.cache_config
        return cache.num_gpu_blocks * cache.block_size


@contextmanager
def running(checkpoint: Path, **options) -> Iterator[Vllm]:
    llm = LLM(str(checkpoint), **SETTINGS | options)
    try:
        yield Vllm(llm)
    finally:
        llm.llm_engine.engine_core.shutdown()
        del llm
        cleanup_dist_env_and_memory()
