"""Hostile outputs for `verify`: files of any content, with a gatenorm.json whose digests fit them."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from blake3 import blake3

from tests.fuzz.mutate import mutate

LISTED = (
    "../outside/x",
    "/etc/passwd",
    "..",
    "",
    "a\\b",
    "gatenorm.json",
    ".gatenorm-journal",
    "x\0y",
    "config.json/x",
)

ADDED = ("chat_template.jinja", "adapter_config.json", ".hidden", "x\x1b[2J", "pytorch_model.bin", "Config.json")


def spoil(out: Path, rng: random.Random, seeds: Sequence[bytes]) -> None:
    """Changes a file, or what the record says, and makes the record's digests right again."""
    record = json.loads((out / "gatenorm.json").read_bytes())
    for _ in range(rng.choice((1, 1, 2))):
        if rng.randrange(3):
            path = rng.choice(sorted(p for p in out.rglob("*") if p.is_file() and p.name != "gatenorm.json"))
            path.write_bytes(mutate(rng, path.read_bytes(), seeds))
        else:
            _spoil_record(record, rng)
    resign(out, record)


def _spoil_record(record: dict[str, Any], rng: random.Random) -> None:
    files = record["files"]
    if not isinstance(files, dict) or not all(isinstance(entry, dict) for entry in files.values()) or not files:
        return
    match rng.randrange(5):
        case 0:
            files[rng.choice(LISTED)] = {"size": 0, "blake3": blake3(b"").hexdigest()}
        case 1:
            entry = files[rng.choice(sorted(files))]
            entry[rng.choice(sorted(entry))] = rng.choice([None, -1, 1.5, "x", [], {}, "0" * 64, 10**30, True])
        case 2:
            files.pop(rng.choice(sorted(files)))
        case 3:
            record[rng.choice(sorted(record))] = rng.choice(
                [None, 1, "x", [], {}, [0], "zeroed", "no-op", "mistral"]
            )
        case 4:
            record["dropped"] = sorted(rng.sample(range(4), rng.randrange(5)))


def resign(out: Path, record: dict[str, Any]) -> None:
    if isinstance(record.get("files"), dict):
        for name, entry in record["files"].items():
            path = out / name
            inside = name in {p.relative_to(out).as_posix() for p in out.rglob("*")}
            if inside and path.is_file() and isinstance(entry, dict) and isinstance(entry.get("size"), int):
                entry |= {"size": path.stat().st_size, "blake3": blake3(path.read_bytes()).hexdigest()}
        record["files"] = dict(sorted(record["files"].items()))
    record.pop("blake3", None)
    text = json.dumps(record, indent=1, ensure_ascii=False) + "\n"
    record["blake3"] = blake3(text.encode("utf-8", "surrogatepass")).hexdigest()
    text = json.dumps(record, indent=1, ensure_ascii=False) + "\n"
    (out / "gatenorm.json").write_bytes(text.encode("utf-8", "surrogatepass"))


def lay_waste(out: Path, rng: random.Random) -> None:
    """What is no longer an output of ours: holes, links, pipes, what is off the record, another modelling file."""
    names = sorted(p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file())
    path = out / rng.choice(names)
    kind = rng.randrange(6)
    if kind == 0:
        os.truncate(path, rng.choice([1 << 30, 1 << 40, 0]))
        return
    if kind == 1:
        (out / rng.choice(ADDED)).write_bytes(b"{}")
        return
    if kind == 2:
        record = json.loads((out / "gatenorm.json").read_bytes())
        os.truncate(path, 1 << 40)
        name = path.relative_to(out).as_posix()
        if name in record["files"]:
            record["files"][name]["size"] = 1 << 40
            text = json.dumps(record, indent=1, ensure_ascii=False) + "\n"
            (out / "gatenorm.json").write_text(text)
        return
    content = path.read_bytes()
    path.unlink()
    if kind == 3:
        path.symlink_to(rng.choice(["/dev/zero", "..", path.name, "nowhere", str(out.parent / "mine" / "thesis")]))
    elif kind == 4:
        os.mkfifo(path)
    else:
        (out / "elsewhere").write_bytes(content)
        os.link(out / "elsewhere", path)
