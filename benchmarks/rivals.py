"""What people would use instead, each as they would write it. One of them runs in a process of its own:

    python -m benchmarks.rivals NAME MODEL THREADS

It prints one line of JSON: the seconds of the work without imports, and the per-head (or joint) scores.
"""

from __future__ import annotations

import json
import math
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path

FIXTURE = Path(__file__).parents[1] / "fixtures" / "sotu-5m"


def projections(model: Path) -> list[tuple[Path, str, str]]:
    """For each layer the files and names of q and k."""
    weights = json.loads((model / "model.safetensors.index.json").read_text())["weight_map"]
    layers = json.loads((model / "config.json").read_text())["num_hidden_layers"]
    names = [
        (f"model.layers.{n}.self_attn.q_proj.weight", f"model.layers.{n}.self_attn.k_proj.weight")
        for n in range(layers)
    ]
    return [(model / weights[q], q, k) for q, k in names]


def heads(model: Path) -> tuple[int, int]:
    config = json.loads((model / "config.json").read_text())
    return config["num_attention_heads"], config["num_key_value_heads"]


def read(model: Path, threads: int) -> list[float]:
    """Only reads the bytes of q and k, into memory that is used again."""
    from gatenorm_stream.checkpoint.safetensors import open_checkpoint
    from gatenorm_stream.families.model import read_model
    from gatenorm_stream.sources.local import LocalSource

    with open_checkpoint(LocalSource(model)) as checkpoint:
        ranges = [
            (tensor.shard.file, part)
            for a in read_model(checkpoint).attention
            for tensor, where in (*a.query.ranges, *a.key.ranges)
            for part in where.chunks(1 << 20)
        ]

        def share(which: list) -> None:
            memory = memoryview(bytearray(1 << 20))
            for file, part in which:
                file.read_into(part, memory[: len(part)])

        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(share, (ranges[i::threads] for i in range(threads))))
    return []


def safetensors_numpy(model: Path, threads: int) -> list[float]:
    """The ten lines of a user who has numpy: safe_open, one product of float32 a head. bfloat16 needs torch."""
    import numpy as np
    from safetensors import safe_open

    queries, keys = heads(model)
    scores = []
    for file, q_name, k_name in projections(model):
        with safe_open(file, framework="pt") as f:
            q, k = (f.get_tensor(name).float().numpy() for name in (q_name, k_name))
        q, k = q.reshape(queries, -1, q.shape[1]), k.reshape(keys, -1, k.shape[1])
        k = np.repeat(k, queries // keys, axis=0)
        squares = [np.vdot(a @ a.T, b @ b.T) for a, b in zip(q, k, strict=True)]
        scores.append(math.sqrt(math.fsum(squares)))
    return scores


def torch_per_head(model: Path, threads: int, narrow: bool = False) -> list[float]:
    """Batched products of all heads of a layer; with `narrow`, in the stored bfloat16 instead of float32."""
    import torch
    from safetensors import safe_open

    queries, keys = heads(model)
    scores = []
    for file, q_name, k_name in projections(model):
        with safe_open(file, framework="pt") as f:
            q, k = f.get_tensor(q_name), f.get_tensor(k_name)
        if not narrow:
            q, k = q.float(), k.float()
        q, k = q.view(queries, -1, q.shape[1]), k.view(keys, -1, k.shape[1])
        gram_q, gram_k = torch.bmm(q, q.mT), torch.bmm(k, k.mT)
        gram_q = gram_q.view(keys, queries // keys, *gram_q.shape[1:]).double()
        scores.append(math.sqrt(float((gram_q * gram_k.double()[:, None]).sum())))
    return scores


def torch_bf16(model: Path, threads: int) -> list[float]:
    return torch_per_head(model, threads, narrow=True)


def torch_joint(model: Path, threads: int) -> list[float]:
    """||Q^T K||_F of whole projections, by their Gram matrices."""
    from safetensors import safe_open

    queries, keys = heads(model)
    scores = []
    for file, q_name, k_name in projections(model):
        with safe_open(file, framework="pt") as f:
            q, k = f.get_tensor(q_name).float(), f.get_tensor(k_name).float()
        q = q.view(keys, queries // keys, -1, q.shape[1]).sum(1).reshape(k.shape)
        scores.append(math.sqrt(float(((q @ q.mT).double() * (k @ k.mT).double()).sum())))
    return scores


def transformers_per_head(model: Path, threads: int) -> list[float]:
    """Loads the whole model, then scores its modules."""
    import torch
    from transformers import AutoModelForCausalLM

    queries, keys = heads(model)
    loaded = AutoModelForCausalLM.from_pretrained(model, dtype="auto", local_files_only=True)
    scores = []
    for layer in loaded.model.layers:
        q, k = (p.weight.detach().float() for p in (layer.self_attn.q_proj, layer.self_attn.k_proj))
        q, k = q.view(queries, -1, q.shape[1]), k.view(keys, -1, k.shape[1])
        gram_q, gram_k = torch.bmm(q, q.mT), torch.bmm(k, k.mT)
        gram_q = gram_q.view(keys, queries // keys, *gram_q.shape[1:]).double()
        scores.append(math.sqrt(float((gram_q * gram_k.double()[:, None]).sum())))
    return scores


def ours(model: Path, threads: int, reading: str = "per-head") -> list[float]:
    import gatenorm_stream

    return [layer.score for layer in gatenorm_stream.score(model, reading=reading, threads=threads)]


def ours_joint(model: Path, threads: int) -> list[float]:
    return ours(model, threads, "joint")


def ours_stored(model: Path, threads: int) -> list[float]:
    return ours(model, threads, "stored")


def blas_joint(model: Path, threads: int) -> list[float]:
    """Only the products that `joint` needs: the two Gram matrices of each layer, of numbers in memory."""
    import numpy as np

    config = json.loads((model / "config.json").read_text())
    hidden, keys = config["hidden_size"], config["num_key_value_heads"]
    rows = keys * hidden // config["num_attention_heads"]
    x = np.ones((rows, hidden), np.float32)

    def layer(_: int) -> None:
        x @ x.T
        x @ x.T

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(layer, range(config["num_hidden_layers"])))
    return []


RIVALS = {
    function.__name__: function
    for function in (
        read,
        safetensors_numpy,
        torch_per_head,
        torch_bf16,
        torch_joint,
        transformers_per_head,
        ours,
        ours_joint,
        ours_stored,
        blas_joint,
    )
}
ONE_BLAS_THREAD = ("ours", "ours_joint", "ours_stored", "blas_joint")


def main() -> None:
    name, model, threads = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    blas = "1" if name in ONE_BLAS_THREAD else str(threads)
    os.environ |= dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), blas)
    imported = {"torch": ("safetensors.torch",), "safetensors": ("safetensors.torch",), "blas": ("numpy",)}
    imported |= {"transformers": ("transformers.models.llama.modeling_llama",)}
    for module in imported.get(name.partition("_")[0], ("gatenorm_stream.sources.open", "gatenorm_stream.api")):
        import_module(module)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)
    if name in ONE_BLAS_THREAD[:-1]:
        RIVALS[name](FIXTURE, threads)  # what is imported only when it is needed
    begun = time.perf_counter()
    scores = RIVALS[name](model, threads)
    print(json.dumps({"seconds": time.perf_counter() - begun, "scores": scores}))


if __name__ == "__main__":
    main()
