"""Block D's public model: its attention replaced by nothing and by constants, judged by loss and HellaSwag.

    python -m benchmarks.quality.public_criteria ... --out public.json
    python -m benchmarks.quality.public_model --model SmolLM2.gguf --told public.json --out smollm2.json

`--part 0/4` does a quarter of the choices; the files of all parts are put together with `--join`.
"""

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
import transformers
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, PreTrainedModel

from benchmarks.quality.block_d import greedy_ways, judge_all
from benchmarks.quality.piece import machine, recorded_command
from benchmarks.quality.replaced import constants_of, exchanged, mean_loss, sublayers
from benchmarks.quality.train import last_hidden
from benchmarks.quality.ways import Way, counts, ways

WINDOW = 1024
BATCH = 16
GREEDY_WINDOWS = 8
ACCURACY = ("per-head", "influence", "last", "greedy")
TASKS_AT_ONCE = 256
SEED = 0


def rows(ids: Sequence[int], device: str) -> torch.Tensor:
    """(n, WINDOW); what is left over is left out."""
    whole = len(ids) // WINDOW
    return torch.tensor(ids[: whole * WINDOW], device=device).view(whole, WINDOW)


@torch.no_grad()
def accuracy(model: PreTrainedModel, tasks: Sequence[Mapping[str, object]], device: str) -> float:
    """Share of tasks whose right ending has the highest log probability a byte."""
    asked = [(t["context"], ending) for t in tasks for ending in t["endings"]]
    order = sorted(range(len(asked)), key=lambda i: len(asked[i][0]) + len(asked[i][1]))
    scores = [0.0] * len(asked)
    for start in range(0, len(order), TASKS_AT_ONCE):
        part = order[start : start + TASKS_AT_ONCE]
        longest = max(len(asked[i][0]) + len(asked[i][1]) for i in part)
        ids = torch.zeros(len(part), longest, dtype=torch.long)
        ending = torch.zeros(len(part), longest, dtype=torch.bool)
        for row, i in enumerate(part):
            context, end = asked[i]
            ids[row, : len(context) + len(end)] = torch.tensor([*context, *end])
            ending[row, len(context) : len(context) + len(end)] = True
        ids, wanted = ids.to(device), ending[:, 1:].to(device)
        hidden = last_hidden(model, ids[:, :-1])[wanted]
        nats = cross_entropy(model.lm_head(hidden).float(), ids[:, 1:][wanted], reduction="none")
        row_of = wanted.nonzero()[:, 0]
        sums = torch.zeros(len(part), device=device).index_add_(0, row_of, nats).tolist()
        for i, value in zip(part, sums, strict=True):
            scores[i] = -value
    right, at = 0, 0
    for task in tasks:
        per_byte = [scores[at + n] / size for n, size in enumerate(task["bytes"])]
        right += max(range(len(per_byte)), key=per_byte.__getitem__) == task["right"]
        at += len(per_byte)
    return right / len(tasks)


def measure(
    model: PreTrainedModel, told: Mapping[str, object], device: str, part: int, parts: int, fewer: int
) -> dict:
    """`fewer` divides the text, for trials."""
    layers = model.config.num_hidden_layers
    prose, code = (rows(told[name], device) for name in ("prose", "code"))
    prose, code = prose[: max(1, len(prose) // fewer)], code[: max(1, len(code) // fewer)]
    judged = rows(told["other"], device)[: max(1, GREEDY_WINDOWS // fewer)]
    built_in, other = (torch.tensor(told[name], device=device)[None] for name in ("built-in", "other"))
    constants = {"none": None, "means": built_in[:, :512]}
    constants |= {"means 128": built_in[:, :128], "means 2048": built_in[:, :2048], "means other": other[:, :2048]}

    def losses() -> dict[str, float]:
        return {"loss": mean_loss(model, prose, BATCH), "code": mean_loss(model, code, BATCH)}

    long = sublayers(model, built_in[:, :2048])
    scores = {name: list(values) for name, values in told["scores"].items()}
    scores["fluctuation"] = [s.fluctuation for s in long]
    wanted = list(ways(scores, layers, SEED))
    found = {"choices": judge_all(model, wanted[part::parts], constants, losses)}
    if part == parts - 1:
        for name, steps in greedy_ways(model, built_in[:, :512], judged, BATCH).items():
            found["choices"] += judge_all(model, steps, {name: constants[name]}, losses)
        seen = sublayers(model, built_in[:, :512])
        found |= {
            "layers": layers,
            "counts": counts(layers),
            "judged": {"loss": prose[:, 1:].numel(), "code": code[:, 1:].numel()},
            "unpruned": losses(),
            "scores": scores,
            "varying": [s.varying for s in seen],
            "influence_here": [s.influence for s in seen],
            "single": [
                judge_all(model, [Way("", "", (n,))], {"none": None}, losses)[0]["loss"] for n in range(layers)
            ],
        }
    return found


def add_accuracy(model: PreTrainedModel, told: Mapping[str, object], found: dict, device: str, fewer: int) -> None:
    tasks = told["tasks"][: len(told["tasks"]) // fewer]
    means = torch.tensor(told["built-in"][:512], device=device)[None]
    model.to(torch.bfloat16)
    if "unpruned" in found:
        found["unpruned"]["hellaswag"] = accuracy(model, tasks, device)
        found["tasks"] = len(tasks)
    known: dict[tuple, float] = {}
    for choice in found["choices"]:
        name = choice["constants"]
        if choice["criterion"] not in ACCURACY or name not in ("none", "means"):
            continue
        key = (tuple(choice["layers"]), name)
        if key not in known:
            modules = constants_of(model, choice["layers"], means if name == "means" else None)
            with exchanged(model, modules):
                known[key] = accuracy(model, tasks, device)
        choice["hellaswag"] = known[key]


def join(files: Sequence[Path]) -> dict:
    parts = [json.loads(file.read_text()) for file in files]
    whole = {key: value for part in parts for key, value in part.items()}
    return whole | {"choices": [choice for part in parts for choice in part["choices"]]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="GGUF file")
    parser.add_argument("--told", type=Path, help="what public_criteria.py wrote")
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--part", default="0/1", help="N/OF")
    parser.add_argument("--fewer", type=int, default=1, help="divides the text, for trials")
    parser.add_argument("--join", type=Path, nargs="+", help="files of all parts")
    args = parser.parse_args()
    if args.join:
        args.out.write_text(json.dumps(join(args.join), separators=(",", ":")) + "\n")
        return
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    torch.set_float32_matmul_precision("high")
    begun = time.monotonic()
    model = AutoModelForCausalLM.from_pretrained(
        args.model.parent, gguf_file=args.model.name, dtype=torch.float32, local_files_only=True
    )
    model = model.to(args.device).eval().requires_grad_(False)
    part, parts = map(int, args.part.split("/"))
    told = json.loads(args.told.read_text())
    loaded = time.monotonic()
    found = {"command": recorded_command(), "machine": machine(args.device), "code_python": told["python"]}
    found |= measure(model, told, args.device, part, parts, args.fewer)
    print(f"part {part}: loss done, {time.monotonic() - loaded:.0f} s", flush=True)
    args.out.write_text(json.dumps(found, separators=(",", ":")) + "\n")
    add_accuracy(model, told, found, args.device, args.fewer)
    found["seconds"] = {"loading": loaded - begun, "judging": time.monotonic() - loaded}
    args.out.write_text(json.dumps(found, separators=(",", ":")) + "\n")
    print(f"part {part}: {found['seconds']}", flush=True)


if __name__ == "__main__":
    main()
