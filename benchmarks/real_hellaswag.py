"""HellaSwag of what the command wrote, in stock transformers: part of benchmarks/real_model.py, or alone.

    python -m benchmarks.real_hellaswag hellaswag_val.txt.bz2

Adds its part to the JSON of real_model.py after every 100 tasks, and goes on where it was interrupted. The file has
six lines a task: context, number of the right ending, four endings.

A context and its four endings are one row: every token sees the context and its own ending alone, so that the
context is run once. Layers before the first that differs from the unpruned model's are run once for all variants.
"""

from __future__ import annotations

import argparse
import bz2
import hashlib
import json
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from torch.nn.functional import cross_entropy
from transformers import AutoTokenizer, PreTrainedModel

from benchmarks.machine import machine
from benchmarks.real_model import OUT, Variant, dequantised, fetched, in_float32, pruned

TASKS = 2_000
AT_ONCE = 100
ROWS = 10
CHECKED = 4
VARIANTS = (
    Variant("unpruned", 0),
    Variant("gate-norm", 3),
    Variant("gate-norm", 6),
    Variant("gate-norm, constants", 6),
    Variant("influence, constants", 10),
)


@dataclass(frozen=True)
class Task:
    """Token ids of a context and of what each ending adds to it, and the endings' lengths in characters."""

    context: list[int]
    endings: list[list[int]]
    characters: list[int]
    right: int

    def __len__(self) -> int:
        return len(self.context) + sum(map(len, self.endings))


@dataclass(frozen=True)
class Rows:
    """Tasks as rows of one batch; tokens after a row's end see only themselves.

    ids, positions: (rows, length). sees: (rows, 1, length, length), bool. Of each token of an ending, (tokens,):
    its `row`, where it is foretold (`before`), its `token`, and `ending`, 4 * row + the ending's number.
    """

    ids: torch.Tensor
    positions: torch.Tensor
    sees: torch.Tensor
    row: torch.Tensor
    before: torch.Tensor
    token: torch.Tensor
    ending: torch.Tensor


def parts(whole: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    return (whole[start : start + size] for start in range(0, len(whole), size))


def read_tasks(path: Path, directory: Path) -> list[Task]:
    tokenizer = AutoTokenizer.from_pretrained(directory, local_files_only=True)
    lines = bz2.decompress(path.read_bytes()).decode().splitlines()[: 6 * TASKS]
    tasks = []
    for context, right, *endings in parts(lines, 6):
        ids = tokenizer(context)["input_ids"]
        whole = [tokenizer(f"{context} {ending}")["input_ids"] for ending in endings]
        added = [tokens[len(ids) :] for tokens in whole]
        tasks.append(Task(ids, added, [len(ending) for ending in endings], int(right)))
    return tasks


def rows_of(tasks: Sequence[Task]) -> Rows:
    shape = len(tasks), max(map(len, tasks))
    ids, positions = torch.zeros(shape, dtype=torch.long), torch.zeros(shape, dtype=torch.long)
    sees = torch.eye(shape[1], dtype=torch.bool).repeat(shape[0], 1, 1, 1)
    asked = []
    for row, task in enumerate(tasks):
        size = len(task.context)
        ids[row, :size], positions[row, :size] = torch.tensor(task.context), torch.arange(size)
        sees[row, 0, :size, :size] = torch.ones(size, size).tril().bool()
        start = size
        for number, ending in enumerate(task.endings):
            stop = start + len(ending)
            ids[row, start:stop] = torch.tensor(ending)
            positions[row, start:stop] = torch.arange(size, size + len(ending))
            sees[row, 0, start:stop, :size] = True
            sees[row, 0, start:stop, start:stop] = torch.ones(len(ending), len(ending)).tril().bool()
            before = [size - 1, *range(start, stop - 1)]
            asked += [(row, at, token, 4 * row + number) for at, token in zip(before, ending, strict=True)]
            start = stop
    return Rows(ids, positions, sees, *torch.tensor(asked).unbind(1))


@torch.inference_mode()
def log_probabilities(model: PreTrainedModel, rows: Rows) -> torch.Tensor:
    """Of each ending, (rows, 4), float32, in nats."""
    last = model.model(rows.ids, attention_mask=rows.sees, position_ids=rows.positions, use_cache=False)[0]
    logits = model.lm_head(last[rows.row, rows.before])
    nats = cross_entropy(logits, rows.token, reduction="none")
    return torch.zeros(4 * len(rows.ids)).index_add_(0, rows.ending, -nats).view(-1, 4)


@torch.inference_mode()
def one_by_one(model: PreTrainedModel, task: Task) -> torch.Tensor:
    """The same of one task, (4,), an ordinary run for each ending."""
    sums = []
    for ending in task.endings:
        logits = model(torch.tensor([task.context + ending])).logits[0, len(task.context) - 1 : -1]
        sums.append(-cross_entropy(logits, torch.tensor(ending), reduction="sum"))
    return torch.stack(sums)


class Known(torch.nn.Module):
    """Stands for layers whose output is known."""

    output: torch.Tensor

    def forward(self, *_: object, **__: object) -> torch.Tensor:
        return self.output


def outputs(model: PreTrainedModel, rows: Rows) -> list[torch.Tensor]:
    """Of each layer."""
    found: list[torch.Tensor] = []
    hooks = [layer.register_forward_hook(lambda _, __, out: found.append(out)) for layer in model.model.layers]
    log_probabilities(model, rows)
    for hook in hooks:
        hook.remove()
    return found


class Together:
    """Models whose first layers are the same as the first model's, which are run once."""

    def __init__(self, models: Sequence[PreTrainedModel], example: Rows) -> None:
        self.models = models
        first, *others = (outputs(model, example) for model in models)
        self.shared = [
            next(n for n, (x, y) in enumerate(zip(first, own, strict=True)) if not x.equal(y)) for own in others
        ]
        """Layers; of each model but the first."""
        for model, shared in zip(models[1:], self.shared, strict=True):
            if not shared:
                continue
            known = Known()
            model.model.layers = torch.nn.ModuleList([known, *model.model.layers[shared:]])
            models[0].model.layers[shared - 1].register_forward_hook(
                lambda _, __, out, known=known: setattr(known, "output", out)
            )

    def log_probabilities(self, rows: Rows) -> list[torch.Tensor]:
        return [log_probabilities(model, rows) for model in self.models]


def judged(together: Together, tasks: Sequence[Task]) -> Iterator[tuple[str, str]]:
    """Of each model, task by task: is the likeliest ending the right one (1 or 0), and that a character?"""
    order = sorted(range(len(tasks)), key=lambda n: len(tasks[n]))
    plain = [[""] * len(tasks) for _ in together.models]
    a_character = [[""] * len(tasks) for _ in together.models]
    for part in parts(order, ROWS):
        found = together.log_probabilities(rows_of([tasks[n] for n in part]))
        sizes = torch.tensor([tasks[n].characters for n in part])
        for model, sums in enumerate(found):
            for n, best, best_norm in zip(part, sums.argmax(1), (sums / sizes).argmax(1), strict=True):
                plain[model][n] = str(int(best == tasks[n].right))
                a_character[model][n] = str(int(best_norm == tasks[n].right))
    return zip(map("".join, plain), map("".join, a_character), strict=True)


def share(right: str) -> float:
    return right.count("1") / len(right)


def add_hellaswag(path: Path, gguf: Path, folder: Path, out: Path) -> None:
    """Writes `hellaswag` into the JSON `out`; what stands there of the same file is gone on with."""
    directory = dequantised(gguf, folder)
    tasks = read_tasks(path, directory)
    models, runs = [], []
    for variant in VARIANTS:
        with pruned(directory, folder, variant) as (made, record):
            models.append(in_float32(made))
            runs.append({**asdict(variant), "record": record, "right": "", "right_norm": ""})
    checked = rows_of(tasks[:CHECKED])
    differs = max(
        (log_probabilities(model, checked)[n] - one_by_one(model, tasks[n])).abs().max().item()
        for model in models
        for n in range(CHECKED)
    )
    together = Together(models, checked)
    part: dict[str, Any] = {
        "file_sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "engine": f"transformers {transformers.__version__}, torch {torch.__version__}, float32",
        "nats_from_ordinary_runs": differs,
        "shared_layers": together.shared,
        "machine": machine(),
        "begun": time.strftime("%Y-%m-%d %H:%M", time.gmtime()),
        "threads": torch.get_num_threads(),
        "cpu_seconds": 0,
        "runs": runs,
    }
    told = json.loads(out.read_text()) if out.exists() else {}
    earlier = told.get("hellaswag", part)
    if earlier["file_sha256"] == part["file_sha256"] and len(earlier["runs"][0]["right"]) < TASKS:
        part = earlier
    told["hellaswag"] = part
    begun, spent = time.process_time(), part["cpu_seconds"]
    for start in range(len(part["runs"][0]["right"]), len(tasks), AT_ONCE):
        found = judged(together, tasks[start : start + AT_ONCE])
        for run, (right, right_norm) in zip(part["runs"], found, strict=True):
            run["right"] += right
            run["right_norm"] += right_norm
            run["acc"], run["acc_norm"] = share(run["right"]), share(run["right_norm"])
        part["tasks"] = len(part["runs"][0]["right"])
        part["cpu_seconds"] = spent + round(time.process_time() - begun)
        out.write_text(json.dumps(told, indent=1) + "\n")
        shares = [run["acc_norm"] for run in part["runs"]]
        print(f"{part['tasks']} tasks, {part['cpu_seconds']} s: {shares}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("hellaswag", type=Path, help="tasks, bz2")
    parser.add_argument("--folder", type=Path, default=Path("build/real-model"), help="for the model and outputs")
    parser.add_argument("--out", type=Path, default=OUT)
    args = parser.parse_args()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    args.folder.mkdir(parents=True, exist_ok=True)
    add_hellaswag(args.hellaswag, fetched(args.folder), args.folder, args.out)


if __name__ == "__main__":
    main()
