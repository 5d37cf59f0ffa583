"""SGLang's own model runner on the CPU: a checkpoint is loaded and continues a prompt greedily.

    python sglang_run.py CHECKPOINT PROMPT NEW OUT

PROMPT is a JSON array of token ids. OUT becomes an .npz file: `tokens`, prompt and continuation (t,); `logits`,
those after the prompt and each new token but the last (NEW, vocabulary); `cached`, in how many layers it has a KV
cache.
"""

from __future__ import annotations

import json
import sys
from array import array

import numpy as np

# isort: split
from sglang.benchmark import one_batch
from sglang.srt.managers.schedule_batch import Req
from sglang.srt.runtime_context import SpawnRanks, publish, spawn_world_rank
from sglang.srt.sampling.sampling_params import SamplingParams
from sglang.srt.server_args import PortArgs, ServerArgs


def load(checkpoint: str):
    arguments = ServerArgs(
        model_path=checkpoint,
        trust_remote_code=True,
        dtype="float32",
        device="cpu",
        attention_backend="torch_native",
        sampling_backend="pytorch",
        disable_radix_cache=True,
        disable_cuda_graph=True,
        mem_fraction_static=0.1,
        max_total_tokens=512,
    )
    place = SpawnRanks(world_rank=spawn_world_rank(arguments, tp_rank=0, pp_rank=0), gpu_id=0)
    publish(arguments, role="scheduler", ranks=place)
    one_batch._init_process_global_configs()
    runner, _ = one_batch.load_model(arguments, PortArgs.init_new(arguments), gpu_id=0, tp_rank=0)
    return runner


def request(prompt: list[int]) -> Req:
    ids = array("q", prompt)
    request = Req(rid=0, origin_input_text="", origin_input_ids=ids, sampling_params=SamplingParams(temperature=0))
    request.full_untruncated_fill_ids = ids
    request.logprob_start_len = -1
    request.extend_end = len(ids)
    return request


def main(checkpoint: str, prompt: str, new: str, out: str) -> None:
    runner = load(checkpoint)
    tokens = json.loads(prompt)
    token, logits, batch = runner.extend([request(tokens)])
    rows = [logits[0]]
    while True:
        tokens.append(int(token[0]))
        if len(rows) == int(new):
            break
        token, logits = runner.decode(token, batch)
        rows.append(logits[0])
    cached = len(runner.torch_runner.token_to_kv_pool.k_buffer)
    np.savez(out, tokens=tokens, logits=[row.float().numpy() for row in rows], cached=cached)


if __name__ == "__main__":
    main(*sys.argv[1:])
