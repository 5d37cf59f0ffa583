"""Hostile directories: what stands where a file should, and what files are called."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

CONFIG, INDEX = "config.json", "model.safetensors.index.json"
SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
FILES = (CONFIG, INDEX, *SHARDS, "tokenizer.json")

Damage = Callable[[Path, random.Random], None]


def _instead(make: Callable[[Path], object]) -> Damage:
    """Something else than a regular file, in place of one."""

    def damage(root: Path, rng: random.Random) -> None:
        path = root / rng.choice(FILES)
        path.unlink()
        make(path)

    return damage


def _beside(*names: str) -> Damage:
    def damage(root: Path, rng: random.Random) -> None:
        path = root / rng.choice(names)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")

    return damage


def _not_utf8(root: Path, rng: random.Random) -> None:
    Path(os.fsdecode(os.fsencode(root) + b"/\xff.txt")).write_bytes(b"x")


def _linked(path: Path) -> None:
    path.symlink_to(path.parent.parent / "outside" / ".kept" / path.name)


def _loop(path: Path) -> None:
    path.symlink_to(path.name)


def _device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def _cut(root: Path, rng: random.Random) -> None:
    path = root / rng.choice(FILES)
    with open(path, "r+b") as file:
        file.truncate(rng.choice([0, 1, 7, 8, 9, path.stat().st_size // 2, path.stat().st_size - 1]))


def _swap(root: Path, rng: random.Random) -> None:
    """Each shard under the other's name."""
    one, two = (root / name for name in SHARDS)
    one.rename(root / "x")
    two.rename(one)
    (root / "x").rename(two)


def _twice(root: Path, rng: random.Random) -> None:
    """Both names lead to one shard."""
    shutil.copy(root / SHARDS[0], root / SHARDS[1])


def _lead_out(root: Path, rng: random.Random) -> None:
    """The index names a file that is there, outside."""
    path = root / INDEX
    index = json.loads(path.read_bytes())
    out = rng.choice(["../outside/", str(root.parent / "outside") + "/", "sub/../../outside/", "./", "..\\"])
    index["weight_map"] = {name: out + shard for name, shard in index["weight_map"].items()}
    path.write_text(json.dumps(index))


DAMAGES: dict[str, Damage] = {
    "missing": _instead(lambda path: None),
    "pipe": _instead(os.mkfifo),
    "folder": _instead(Path.mkdir),
    "device": _instead(_device),
    "dangling link": _instead(lambda path: path.symlink_to("nowhere")),
    "link in a circle": _instead(_loop),
    "link out": _instead(_linked),
    "link to the root": _instead(lambda path: path.symlink_to("/")),
    "empty": _instead(lambda path: path.write_bytes(b"")),
    "cut short": _cut,
    "swapped shards": _swap,
    "one shard twice": _twice,
    "index leads out": _lead_out,
    "reserved names": _beside(
        ".gatenorm-journal", "gatenorm.json", "gatenorm.json/x", "README.md/x", "GateNorm.json"
    ),
    "other case": _beside(
        "Config.json", "readme.md", "MODEL.safetensors.index.json", "Tokenizer.JSON", "TOKENIZER.json"
    ),
    "odd names": _beside("a\\b", "a:b", "\x1b[2J", "new\nline", "\x9bH", "e\u0301", "...", " ", "x" * 200),
    "not UTF-8": _not_utf8,
    "code": _beside("modeling_evil.py", "sitecustomize.py", "numpy.py", "safetensors/__init__.py"),
    "foreign weights": _beside(
        "pytorch_model.bin", "model.GGUF", "x.SAFETENSORS", "onnx/model.onnx", "original/x.pth"
    ),
    "single and sharded": _beside("model.safetensors"),
}
