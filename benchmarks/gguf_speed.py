"""Tokens a second in llama.cpp of a GGUF file before and after pruning, on two threads, in turns.

A random Llama of the width of a 1B model, half as deep, in Q8_0; a quarter of its attention gone. Prints JSON.

    make test-engines                                   # sets up the environment
    .venv-engines/bin/python -m benchmarks.gguf_speed   # 3 minutes, 1.5 GB of disk
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

import gatenorm_stream
from benchmarks.machine import machine
from tests import gguf_files
from tests.engines.llama_cpp import LlamaCpp

LAYERS, HIDDEN, FEED_FORWARD = 12, 2048, 5632
GONE = (3, 6, 9)
PROMPT, TOKENS, ROUNDS = 256, 32, 3


def model(path: Path) -> Path:
    gguf_files.HIDDEN, gguf_files.FEED_FORWARD = HIDDEN, FEED_FORWARD
    gguf_files.HEADS, gguf_files.KV_HEADS = HIDDEN // 64, HIDDEN // 256
    return gguf_files.write_gguf(path, gguf_files.tensors(gguf_files.shapes(LAYERS), "Q8_0"))


def speed(path: Path) -> tuple[float, float]:
    return LlamaCpp(path, exact=False, context=512).speed([n % 40 for n in range(PROMPT)], TOKENS)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        files = {"whole": model(Path(folder, "whole.gguf")), "pruned": Path(folder, "pruned.gguf")}
        gatenorm_stream.prune(gatenorm_stream.plan(files["whole"], layers=GONE), files["pruned"])
        runs = [{"who": who, "speed": speed(path)} for _ in range(ROUNDS) for who, path in files.items()]
        sizes = {who: path.stat().st_size for who, path in files.items()}
    print(json.dumps({"machine": machine(), "load": os.getloadavg()[0], "bytes": sizes, "runs": runs}, indent=1))


if __name__ == "__main__":
    main()
