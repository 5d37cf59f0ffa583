"""The token ids that corpus.py wrote, as tensors."""

import json
import lzma
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch


@dataclass(frozen=True)
class Tokens:
    """Each split as one row of int32 ids."""

    train: torch.Tensor
    validation: torch.Tensor
    heldout: torch.Tensor
    vocabulary: int
    end: int
    closers: tuple[int, ...]

    def to(self, device: str) -> "Tokens":
        splits = (split.to(device) for split in (self.train, self.validation, self.heldout))
        return Tokens(*splits, self.vocabulary, self.end, self.closers)


def load(folder: Path) -> Tokens:
    """Those training files that are in `folder`: all, or as many as were carried along."""
    told = json.loads((folder / "tokens.json").read_text())

    def read(name: str) -> np.ndarray:
        return np.frombuffer(lzma.decompress((folder / name).read_bytes()), dtype="<u2").astype(np.int32)

    with ThreadPoolExecutor() as pool:
        names = [file["file"] for file in told["files"] if (folder / file["file"]).exists()]
        parts = dict(zip(names, pool.map(read, names), strict=True))
    train = np.concatenate([parts[name] for name in names if name.startswith("train")])
    splits = (train, parts["validation.xz"], parts["heldout.xz"])
    rows = (torch.from_numpy(split) for split in splits)
    return Tokens(*rows, told["vocabulary"], told["end"], tuple(told["closers"]))


def windows(ids: torch.Tensor, context: int) -> torch.Tensor:
    """Every window of context + 1 tokens, shape (n, context + 1); neighbours share one token, the last target."""
    return ids.unfold(0, context + 1, context)
