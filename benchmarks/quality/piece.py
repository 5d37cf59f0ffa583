"""One piece of the evidence: train decoders, prune them in many ways, write one JSON file.

    pip install . torch transformers tokenizers
    python -m benchmarks.quality.piece --tokens .corpus/tokens --number 1 --models mha-12:0 --out piece-01.json

The file is rewritten after every change of a run's status, so that a piece that is cut off tells what it did.
"""

import argparse
import json
import multiprocessing
import os
import platform
import shutil
import sys
import time
import traceback
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from queue import Empty

import torch
import transformers

from benchmarks.machine import processor
from benchmarks.quality.data import load
from benchmarks.quality.evaluation import rows_of
from benchmarks.quality.kinds import KINDS
from benchmarks.quality.measure import command, early, measure
from benchmarks.quality.train import Recipe, train


def recorded_command() -> str:
    """The command without where it read and wrote."""
    places = ("--out", "--work", "--tokens")
    words = [w for w, before in zip(sys.argv, ["", *sys.argv], strict=False) if not {w, before} & set(places)]
    return " ".join(["python", *words])


def machine(device: str) -> dict[str, object]:
    return {
        "device": torch.cuda.get_device_name() if device == "cuda" else processor(),
        "processor": processor(),
        "processors": len(os.sched_getaffinity(0)),
        "system": platform.platform(),
        "python": platform.python_version(),
        "gatenorm-stream": command("--version").split()[-1],
        **{package: version(package) for package in ("torch", "transformers", "numpy")},
    }


def one(kind: str, seed: int, args: argparse.Namespace, tokens: object, recipe: Recipe) -> dict[str, object]:
    started = time.monotonic()
    work = args.work / f"{kind}-s{seed}"
    rows = rows_of(tokens, args.scale)
    kept = train(KINDS[kind], seed, tokens, recipe, work, compiled=args.device == "cuda")
    trained = time.monotonic()
    last = kept[-1]
    print(f"  {kind}:{seed} trained: ready {last.ready:.1f} s, done {last.seconds:.1f} s", flush=True)
    along = [
        asdict(checkpoint) | early(work / checkpoint.directory, rows, tokens, args.device)
        for checkpoint in kept[:-1]
    ]
    looked = time.monotonic()
    final = asdict(last) | measure(work / last.directory, rows, tokens, args.device, seed)
    shutil.rmtree(work)
    return {
        "seconds": {
            "training": round(trained - started, 1),
            "measuring": round(time.monotonic() - trained, 1),
            "of that the last": round(time.monotonic() - looked, 1),
        },
        "along_training": along,
        "final": final,
    }


def worker(args: argparse.Namespace, recipe: Recipe, jobs: object, news: object) -> None:
    """Takes jobs until none is left or the deadline is too near for one as long as the longest so far."""
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    torch.set_float32_matmul_precision("high")
    torch.set_num_threads(args.threads)
    tokens = load(args.tokens).to(args.device)
    longest = args.estimate
    while True:
        try:
            number, kind, seed = jobs.get_nowait()
        except Empty:
            return
        begun = time.time()
        if begun + longest > args.begun + args.deadline:
            news.put((number, {"status": "not started: too little time left"}))
            continue
        news.put((number, {"status": "cut off"}))
        try:
            result = {"status": "done"} | one(kind, seed, args, tokens, recipe)
        except Exception:
            result = {"status": "failed", "error": traceback.format_exc()[-2000:]}
        longest = max(longest, time.time() - begun)
        news.put((number, result))
        torch.cuda.empty_cache()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=Path, required=True, help="folder that corpus.py wrote")
    parser.add_argument("--models", required=True, help="KIND:SEED,... in the order in which they are made")
    parser.add_argument("--number", required=True, help="of the piece; `trial` if it does not count")
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--work", type=Path, default=Path(".corpus/models"), help="folder for checkpoints")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--workers", type=int, default=2, help="models at a time")
    parser.add_argument("--threads", type=int, default=4, help="of each worker, on the CPU")
    parser.add_argument(
        "--deadline", type=float, default=1e9, help="seconds; nothing is started that would pass it"
    )
    parser.add_argument("--estimate", type=float, default=100, help="seconds for the first model of a worker")
    parser.add_argument("--scale", type=int, default=1, help="divides the text measured on, for trials")
    parser.add_argument("--train-tokens", type=int, default=Recipe.tokens, help="another number: block C, trials")
    parser.add_argument("--batch", type=int, default=Recipe.batch, help="another number of windows, for trials")
    parser.add_argument("--learning-rate", type=float, default=Recipe.learning_rate, help="the peak")
    args = parser.parse_args()
    args.begun = time.time()

    recipe = replace(Recipe(), tokens=args.train_tokens, batch=args.batch, learning_rate=args.learning_rate)
    wanted = [(kind, int(seed)) for kind, _, seed in (model.partition(":") for model in args.models.split(","))]
    corpus = json.loads((args.tokens / "tokens.json").read_text())
    there = [file for file in corpus["files"] if (args.tokens / file["file"]).exists()]
    result = {
        "piece": args.number,
        "command": recorded_command(),
        "machine": machine(args.device),
        "recipe": asdict(recipe),
        "corpus": corpus | {"files": there},
        "runs": [
            {"run": f"{args.number}-{n}", "kind": kind, "seed": seed, "status": "not started"}
            for n, (kind, seed) in enumerate(wanted, 1)
        ],
    }
    context = multiprocessing.get_context("spawn")
    jobs, news = context.Queue(), context.Queue()
    for n, (kind, seed) in enumerate(wanted):
        jobs.put((n, kind, seed))
    time.sleep(0.5)  # a queue hands over in the background
    workers = [context.Process(target=worker, args=(args, recipe, jobs, news)) for _ in range(args.workers)]
    for process in workers:
        process.start()
    while any(process.is_alive() for process in workers) or not news.empty():
        try:
            n, told = news.get(timeout=1)
        except Empty:
            continue
        result["runs"][n] |= told
        result["seconds"] = round(time.time() - args.begun, 1)
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(result, separators=(",", ":")) + "\n")
        run = result["runs"][n]
        final = run.get("final", {})
        loss = final.get("validation_loss")
        print(
            f"{result['seconds']:6} s  {run['run']} {run['kind']}:{run['seed']} {told['status']} {loss or ''}"
            f" {run.get('seconds', '')} {run.get('error', '')[-300:]}",
            flush=True,
        )


if __name__ == "__main__":
    main()
