"""Prefill and decode speed and memory of full-size shapes, with ever more attention sublayers gone.

    pip install . torch transformers
    python -m benchmarks.throughput.measure --shapes 13b,7b-gqa --out throughput.json

bfloat16, SDPA attention, random weights and tokens, greedy next tokens. Decode is timed twice: as
transformers runs it step by step (each kernel launched from Python, growing cache), and with a static cache and
the step captured once as a CUDA graph, so that the time is the GPU's. Nothing is compiled. Each case starts with a
warm-up; the numbers are medians. A case that runs out of memory is a result and is written as one.
"""

import argparse
import gc
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import torch
import transformers
from transformers import DynamicCache, PreTrainedModel, StaticCache

from benchmarks.machine import processor
from benchmarks.throughput.shapes import SHAPES, random_model, spread, write_config

COUNTS = {40: (0, 8, 20, 4, 12, 16), 32: (0, 8, 16, 4, 12), 8: (0, 2)}
BATCHES = (1, 8)
CONTEXTS = (512, 2048, 8192)
STEPS = 24  # of a graph
EAGER_STEPS = 10
REPEATS = 3


def seconds(work: Callable[[], object]) -> float:
    synchronize()
    begun = time.perf_counter()
    work()
    synchronize()
    return time.perf_counter() - begun


def synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def cache_bytes(cache: DynamicCache) -> int:
    held = (
        part for layer in cache.layers for part in (getattr(layer, "keys", None), getattr(layer, "values", None))
    )
    return sum(part.numel() * part.element_size() for part in held if part is not None)


def prefill(model: PreTrainedModel, ids: torch.Tensor) -> DynamicCache:
    cache = DynamicCache(config=model.config)
    model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
    return cache


def step_by_step(model: PreTrainedModel, cache: DynamicCache, token: torch.Tensor) -> list[float]:
    def step() -> None:
        nonlocal token
        out = model(input_ids=token, past_key_values=cache, use_cache=True)
        token = out.logits[:, -1:].argmax(-1)

    return [seconds(step) for _ in range(EAGER_STEPS)][3:]


def as_graph(model: PreTrainedModel, ids: torch.Tensor) -> list[float]:
    """Seconds of each replayed step, after a prefill into a static cache. Needs CUDA."""
    cache = StaticCache(config=model.config, max_cache_len=ids.shape[1] + STEPS + 8)
    model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
    token, position = ids[:, :1].clone(), torch.full((1, 1), ids.shape[1], device=ids.device)

    def step() -> None:
        out = model(input_ids=token, position_ids=position, past_key_values=cache, use_cache=True)
        token.copy_(out.logits[:, -1:].argmax(-1))
        position.add_(1)

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        step()
        step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return [seconds(graph.replay) for _ in range(STEPS)][4:]


def guarded(work: Callable[[], dict[str, object]]) -> dict[str, object]:
    try:
        return work()
    except torch.OutOfMemoryError:
        return {"failed": "out of memory"}
    except Exception:
        return {"failed": traceback.format_exc()[-800:]}
    finally:
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def case(model: PreTrainedModel, batch: int, context: int) -> dict[str, object]:
    device = model.device
    ids = torch.randint(0, model.config.vocab_size, (batch, context), device=device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()

    def eager() -> dict[str, object]:
        repeats = REPEATS if batch * context <= 16_384 else 1
        first = seconds(lambda: prefill(model, ids[:, : min(context, 2048)]))
        times = [seconds(lambda: prefill(model, ids)) for _ in range(repeats)]
        cache = prefill(model, ids)
        stored = cache_bytes(cache)
        decode = statistics.median(step_by_step(model, cache, ids[:, :1]))
        return {
            "warm_up_seconds": round(first, 4),
            "prefill_seconds": round(statistics.median(times), 5),
            "prefill_tokens_per_second": round(batch * context / statistics.median(times), 1),
            "cache_bytes": stored,
            "decode_step_seconds": round(decode, 6),
            "decode_tokens_per_second": round(batch / decode, 2),
            "peak_bytes": torch.cuda.max_memory_allocated() if device.type == "cuda" else None,
        }

    def graph() -> dict[str, object]:
        decode = statistics.median(as_graph(model, ids))
        return {"decode_step_seconds": round(decode, 6), "decode_tokens_per_second": round(batch / decode, 2)}

    graphed = guarded(graph) if device.type == "cuda" else {"failed": "no GPU"}
    return {"batch": batch, "context": context, "eager": guarded(eager), "graph": graphed}


def recorded_command() -> str:
    """The command without where it read and wrote."""
    places = ("--out", "--work", "--tokens")
    words = [w for w, before in zip(sys.argv, ["", *sys.argv], strict=False) if not {w, before} & set(places)]
    return " ".join(["python", *words])


def machine(device: str) -> dict[str, object]:
    told = subprocess.run(["gatenorm-stream", "--version"], check=True, stdout=subprocess.PIPE, text=True).stdout
    return {
        "device": torch.cuda.get_device_name() if device == "cuda" else processor(),
        "processor": processor(),
        "processors": len(os.sched_getaffinity(0)),
        "system": platform.platform(),
        "python": platform.python_version(),
        "gatenorm-stream": told.split()[-1],
        **{package: version(package) for package in ("torch", "transformers")},
    }


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", default="13b,7b-gqa")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--contexts", default=",".join(map(str, CONTEXTS)))
    parser.add_argument("--deadline", type=float, default=1e9, help="seconds; no model is made later")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    transformers.utils.logging.set_verbosity_error()
    begun = time.monotonic()
    contexts = [int(context) for context in args.contexts.split(",")]
    models: list[dict[str, object]] = []
    result = {"command": recorded_command(), "machine": machine(args.device), "models": models}
    with tempfile.TemporaryDirectory() as parent:
        for shape in (SHAPES[name] for name in args.shapes.split(",")):
            for count in COUNTS[shape.layers]:
                told: dict[str, object] = {"shape": shape.name, "layers": shape.layers, "pruned": count}
                models.append(told)
                if time.monotonic() - begun > args.deadline:
                    told["status"] = "not started: too little time left"
                else:
                    pruned = spread(shape.layers, count) if count else []
                    model = random_model(write_config(shape, pruned, Path(parent)), args.device)
                    told["parameters"] = sum(p.numel() for p in model.parameters())
                    told["cases"] = [case(model, batch, context) for context in contexts for batch in BATCHES]
                    told["status"] = "done"
                    del model
                    gc.collect()
                args.out.write_text(json.dumps(result, separators=(",", ":")) + "\n")
                print(f"{time.monotonic() - begun:6.1f} s", shape.name, count, told["status"], flush=True)
                for one in told.get("cases", []):
                    print("   ", json.dumps(one), flush=True)


if __name__ == "__main__":
    main()
