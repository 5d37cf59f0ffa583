"""What llama.cpp's own programs say of a GGUF file."""

import re
from dataclasses import dataclass
from math import log
from pathlib import Path

from tests.deploy.recipes import Block

CONTEXT = 256  # tokens a window


@dataclass(frozen=True)
class Report:
    """Nats per token over the first 1, 2, ... windows of heldout.txt; MiB of K and V for CONTEXT cells in f16.

    llama-perplexity may end before it has printed its last lines, so that the last windows can be missing.
    """

    losses: list[float]
    cache: float


def report(directory: Path, gguf: str) -> Report:
    measure = f"llama-perplexity -m {gguf} -f heldout.txt -c {CONTEXT} -b {CONTEXT}"
    perplexities = re.findall(r"\[\d+\]([\d.]+),", Block("sh", measure).run(directory))
    return Report([log(float(perplexity)) for perplexity in perplexities], cache_size(directory, gguf, CONTEXT))


def cache_size(directory: Path, gguf: str, cells: int) -> float:
    """MiB of K and V in f16, rounded to two places, as llama.cpp reports it."""
    load = f"llama-bench -m {gguf} -p {cells} -n 0 -r 1 --verbose"
    (size,) = set(re.findall(r"llama_kv_cache: size = +([\d.]+) MiB", Block("sh", load).run(directory)))
    return float(size)
