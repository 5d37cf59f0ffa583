"""Block D's public model: its texts as tokens and what the command's own readings and pass say of it, as one JSON.

    python -m benchmarks.quality.public_criteria --model SmolLM2.gguf --judging wikitext2_test.txt \
        --choosing wikitext2_valid.txt --hellaswag hellaswag_val.txt.bz2 --out public.json

Needs no torch. HellaSwag's file: six lines a task, the context, the number of the right ending, four endings.
"""

import argparse
import bz2
import json
import platform
import random
import sysconfig
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gatenorm_stream.families.model import Model
from gatenorm_stream.families.open import open_model
from gatenorm_stream.measuring.forward import Sublayer, run
from gatenorm_stream.measuring.gguf_tokens import read_gguf_tokenizer
from gatenorm_stream.measuring.numpy_decoder import numpy_decoder
from gatenorm_stream.measuring.text import built_in_text
from gatenorm_stream.measuring.tokenizer import Encode
from gatenorm_stream.scoring.readings import READINGS
from gatenorm_stream.scoring.score import scored
from gatenorm_stream.sources.open import open_source

CODE = [
    "argparse",
    "ast",
    "calendar",
    "configparser",
    "csv",
    "dataclasses",
    "difflib",
    "heapq",
    "inspect",
    "ipaddress",
    "json/decoder",
    "random",
    "statistics",
    "textwrap",
    "zipfile/__init__",
]
CODE_TOKENS = 32_768
TASKS = 2_000
LENGTHS = {"influence 128": 128, "influence": 512, "influence 2048": 2048}


def standard_library() -> str:
    folder = Path(sysconfig.get_path("stdlib"))
    files = (folder / f"{name}.py" for name in CODE)
    there = [f if f.exists() else f.parent.with_suffix(".py") for f in files]
    return "\n\n".join(file.read_text() for file in there)


def sublayers(model: Model, ids: Sequence[int]) -> list[Sublayer]:
    tokens = np.array(ids)
    with numpy_decoder(model) as decoder:
        return list(run(decoder, tokens, tokens).sublayers)


def tasks(encode: Encode, path: Path) -> list[dict[str, object]]:
    """Tokens of the context and of each ending with the space before it, and the endings' lengths in bytes."""
    lines = bz2.decompress(path.read_bytes()).decode().splitlines()
    found = []
    for start in range(0, 6 * TASKS, 6):
        context, right, *endings = lines[start : start + 6]
        found.append(
            {
                "context": encode(context),
                "right": int(right),
                "endings": [encode(f" {ending}") for ending in endings],
                "bytes": [len(ending.encode()) for ending in endings],
            }
        )
    return found


def criteria(model: Model, choosing: Sequence[int], other: Sequence[int]) -> dict[str, object]:
    scores = {reading: [s.score for s in scored(model, reading)] for reading in READINGS}
    seen = {name: sublayers(model, choosing[:length]) for name, length in LENGTHS.items()}
    chance = random.Random(0)
    vocabulary = model.checkpoint.tensors["token_embd.weight"].shape[0]
    seen["influence random"] = sublayers(model, [chance.randrange(vocabulary) for _ in range(512)])
    seen["influence other text"] = sublayers(model, other[:512])
    return {
        "scores": scores | {name: [s.influence for s in found] for name, found in seen.items()},
        "varying": [1 - s.constant for s in seen["influence"]],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="GGUF file")
    parser.add_argument("--judging", type=Path, required=True, help="plain text")
    parser.add_argument("--choosing", type=Path, required=True, help="plain text, beside the command's own")
    parser.add_argument("--hellaswag", type=Path, help="tasks, bz2")
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    args = parser.parse_args()
    with open_model(open_source(args.model)) as model:
        encode = read_gguf_tokenizer(model.checkpoint)
        choosing = encode(built_in_text().choosing)
        other = encode(args.choosing.read_text())
        told: dict[str, Any] = {
            "python": platform.python_version(),
            "built-in": choosing[:2048],
            "other": other[:8192],
            "prose": encode(args.judging.read_text()),
            "code": encode(standard_library())[:CODE_TOKENS],
            "tasks": tasks(encode, args.hellaswag) if args.hellaswag else [],
            **criteria(model, choosing, other),
        }
    args.out.write_text(json.dumps(told, separators=(",", ":")) + "\n")
    print({name: len(value) for name, value in told.items()})
    for name, values in told["scores"].items():
        print(name, np.argsort(np.array(values[1:]))[:6] + 1)


if __name__ == "__main__":
    main()
