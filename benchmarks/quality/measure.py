"""What pruning a trained checkpoint costs: by the installed command's readings and by their rivals.

The command scores and chooses. For speed its choices are then silenced in memory, and `checks` shows on
two outputs that the command really wrote that this gives the same loss.
"""

import json
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from benchmarks.quality.criteria import (
    counts,
    first,
    folded,
    greedy,
    last,
    lowest,
    on_data,
    random_choices,
    value_output,
    value_output_product,
)
from benchmarks.quality.data import Tokens
from benchmarks.quality.evaluation import Evaluation, Rows

COMMAND = "gatenorm-stream"
READINGS = ("per-head", "joint", "stored")
DEFAULT = "per-head"
DRAWS = 20
PRIMARY = "L/5"


def command(*arguments: object) -> str:
    words = [COMMAND, *map(str, arguments)]
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)}: exit {done.returncode}: {done.stderr.strip()}")
    return done.stdout


def readings() -> dict[str, tuple[str, ...]]:
    """Every reading that the installed command offers, with its options."""
    plain = {reading: ("--reading", reading) for reading in READINGS}
    if "--fold-norm" not in command("score", "--help"):
        return plain
    return plain | {f"{reading} folded": (*options, "--fold-norm") for reading, options in plain.items()}


def load(directory: Path, device: str, **options: object) -> PreTrainedModel:
    """In bfloat16, as it is stored, on a GPU; in float32 on a CPU."""
    dtype = torch.float32 if device == "cpu" else torch.bfloat16
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=dtype, local_files_only=True, **options)
    return model.to(device).eval().requires_grad_(False)


def scored(directory: Path, asked: Sequence[int]) -> dict[str, list[float]]:
    """For each reading one score a layer, as the command gives them.

    For each count of `asked` the command's choice is compared with the lowest scores. Raises RuntimeError if they
    differ.
    """
    offered = readings()
    jobs = [(name, count) for name in offered for count in asked]

    def ask(job: tuple[str, int]) -> dict[str, object]:
        name, count = job
        return json.loads(command("score", directory, "--json", "--threads", 1, "--drop", count, *offered[name]))

    with ThreadPoolExecutor(6) as pool:
        answers = dict(zip(jobs, pool.map(ask, jobs), strict=True))
    scores = {name: [layer["score"] for layer in answers[name, asked[0]]["layers"]] for name in offered}
    for (name, count), answer in answers.items():
        if tuple(sorted(answer["dropped"])) != lowest(scores[name], count):
            raise RuntimeError(f"{name}, {count}: the command chose {answer['dropped']}, scores {scores[name]}")
    return scores


def single_rises(evaluation: Evaluation, layers: int) -> list[float]:
    base = evaluation.heldout_loss()
    return [evaluation.heldout_loss((layer,)) - base for layer in range(layers)]


def early(directory: Path, rows: Rows, tokens: Tokens, device: str) -> dict[str, object]:
    """Of a checkpoint along training: the scores and what each single layer is worth."""
    model = load(directory, device)
    evaluation, layers = Evaluation(model, rows, tokens.closers), model.config.num_hidden_layers
    scores = scored(directory, [counts(layers)[PRIMARY]])
    cosine, ratio = on_data(model, rows.calibration)
    return {
        "validation_loss": evaluation.calibration_loss(),
        "unpruned": asdict(evaluation.outcome()),
        "scores": scores | {"cosine": cosine, "ratio": ratio},
        "single_rise": single_rises(evaluation, layers),
    }


def measure(directory: Path, rows: Rows, tokens: Tokens, device: str, seed: int) -> dict[str, object]:
    """Every criterion at every count, 20 random choices at each, each layer alone, two outputs of the command."""
    model = load(directory, device)
    evaluation, layers = Evaluation(model, rows, tokens.closers), model.config.num_hidden_layers
    wanted = counts(layers)
    cosine, ratio = on_data(model, rows.calibration)
    calibration = evaluation.calibration_loss()
    scores = scored(directory, [wanted[PRIMARY], wanted["L/2"]]) | {
        "last": last(layers),
        "first": first(layers),
        "value-output": value_output(model),
        "value-output product": value_output_product(model),
        "folded in memory": folded(model),
        "cosine": cosine,
        "ratio": ratio,
        "single": [evaluation.calibration_loss((layer,)) - calibration for layer in range(layers)],
    }
    steps = greedy(evaluation.calibration_loss, layers, max(wanted.values()))

    choices: list[tuple[str, str, Sequence[int]]] = []
    for label, count in wanted.items():
        choices += [(name, label, lowest(values, count)) for name, values in scores.items()]
        choices.append(("greedy", label, steps[count - 1]))
        choices += [("random", label, drawn) for drawn in random_choices(layers, count, DRAWS, seed)]
    outcomes = {dropped: asdict(evaluation.outcome(dropped)) for dropped in {tuple(c) for _, _, c in choices}}
    return {
        "layers": layers,
        "counts": wanted,
        "validation_loss": calibration,
        "unpruned": asdict(evaluation.outcome()),
        "scores": scores,
        "single_rise": single_rises(evaluation, layers),
        "choices": [
            {"criterion": name, "count": label, "layers": list(dropped), **outcomes[tuple(dropped)]}
            for name, label, dropped in choices
        ],
        "checks": checks(directory, evaluation, lowest(scores[DEFAULT], wanted[PRIMARY]), device),
    }


def checks(directory: Path, evaluation: Evaluation, dropped: Sequence[int], device: str) -> list[dict[str, object]]:
    """Held-out loss of what the command writes, read by transformers, against silencing the layers in memory."""
    expected = evaluation.heldout_loss(dropped)
    results = []
    for form in ("zeroed", "auto"):
        with tempfile.TemporaryDirectory() as parent:
            out = Path(parent) / "pruned"
            options = ("--reading", DEFAULT, "--drop", len(dropped), "--format", form, "--quiet")
            try:
                command("prune", directory, "--out", out, *options)
                model = load(out, device, trust_remote_code=form == "auto")
                found = Evaluation(model, evaluation.rows, evaluation.closers.tolist()).heldout_loss()
                said = json.loads((out / "gatenorm.json").read_text())
                result = {"loss": found, "in_memory": expected, "written": said["format"]}
            except Exception as error:
                result = {"error": f"{type(error).__name__}: {error}"[:500]}
            results.append({"format": form, **result})
            shutil.rmtree(out, ignore_errors=True)
    return results
