"""Held-out loss of a model before and after attention sublayers go, in nats per token.

Prunes with the installed command, in the format that only zeroes, and reads the result with stock transformers
on the CPU in float32. The choices by score stand beside random choices of as many sublayers and beside every
sublayer alone; all of them are printed and written, not only the best.

    pip install -e . torch transformers
    python -m benchmarks.heldout_loss
"""

import argparse
import itertools
import json
import platform
import random
import statistics
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import transformers
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from benchmarks.machine import processor
from benchmarks.quality.criteria import lowest, value_output_product

ROOT = Path(__file__).parents[1]
COMMAND = "gatenorm-stream"
READINGS = ("per-head", "joint", "stored")
CRITERION = "value-output-product"
"""Measured beside the readings; the command does not offer it."""
WINDOW = 512
BATCH = 8
SEED = 0


@dataclass(frozen=True)
class Run:
    choice: str
    layers: tuple[int, ...]
    loss: float


def command(*arguments: object) -> str:
    words = [COMMAND, *map(str, arguments)]
    return subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True).stdout


def load(directory: Path) -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32, local_files_only=True).eval()


def windows(directory: Path, text: Path) -> list[torch.Tensor]:
    """Batches of <s> and the WINDOW - 1 tokens after it; one text a line, and a text's last window may be short."""
    tokenizer = AutoTokenizer.from_pretrained(directory, local_files_only=True)
    bos = torch.tensor([tokenizer.bos_token_id])
    rows = [
        torch.cat([bos, part])
        for line in text.read_text(encoding="utf-8").splitlines()
        for part in torch.tensor(tokenizer(line, add_special_tokens=False).input_ids).split(WINDOW - 1)
    ]
    full = torch.stack([row for row in rows if len(row) == WINDOW])
    return [*full.split(BATCH), *(row[None] for row in rows if len(row) < WINDOW)]


@torch.inference_mode()
def loss(model: PreTrainedModel, batches: Sequence[torch.Tensor]) -> float:
    total = count = 0
    for ids in batches:
        logits, targets = model(ids, use_cache=False).logits[:, :-1], ids[:, 1:]
        total += cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum").item()
        count += targets.numel()
    return total / count


def zeroed_layers(model: PreTrainedModel) -> tuple[int, ...]:
    return tuple(i for i, layer in enumerate(model.model.layers) if not layer.self_attn.o_proj.weight.any())


def loss_without(model: PreTrainedModel, layers: Sequence[int], batches: Sequence[torch.Tensor]) -> float:
    """The loss with the attention output of `layers` zeroed in memory; the model is left as it was."""
    outputs = [model.model.layers[i].self_attn.o_proj for i in layers]
    kept = [output.weight.data for output in outputs]
    for output in outputs:
        output.weight.data = torch.zeros_like(output.weight)
    result = loss(model, batches)
    for output, weight in zip(outputs, kept, strict=True):
        output.weight.data = weight
    return result


def pruned_by_command(
    directory: Path, batches: Sequence[torch.Tensor], *options: object
) -> tuple[tuple[int, ...], float]:
    with tempfile.TemporaryDirectory() as parent:
        out = Path(parent) / "pruned"
        command(directory, "--out", out, "--format", "zeroed", "--quiet", *options)
        model = load(out)
        return zeroed_layers(model), loss(model, batches)


def measure(directory: Path, text: Path, draws: int) -> dict[str, object]:
    model, batches = load(directory), windows(directory, text)
    count = len(model.model.layers)
    runs = [Run("unpruned", (), loss(model, batches))]

    scores = {}
    for reading in READINGS:
        told = json.loads(command("score", directory, "--reading", reading, "--json"))
        layers, value = pruned_by_command(directory, batches, "--reading", reading)
        assert list(layers) == sorted(told["dropped"]), f"{reading}: dropped {layers}, announced {told['dropped']}"
        scores[reading] = [layer["score"] for layer in told["layers"]]
        runs.append(Run(reading, layers, value))
    scores[CRITERION] = value_output_product(model)
    layers = lowest(scores[CRITERION], len(runs[-1].layers))
    runs.append(Run(CRITERION, layers, loss_without(model, layers, batches)))

    choices = list(itertools.combinations(range(1, count), len(runs[-1].layers)))
    drawn = random.Random(SEED).sample(choices, min(draws, len(choices)))
    runs += [Run("random", layers, loss_without(model, layers, batches)) for layers in drawn]
    runs += [Run("single", (layer,), loss_without(model, (layer,), batches)) for layer in range(count)]

    example = next(run for run in runs if run.choice == "random")
    by_command = pruned_by_command(directory, batches, "--layers", ",".join(map(str, example.layers)))
    assert by_command == (example.layers, example.loss), f"in memory {example}, by command {by_command}"

    return {
        "model": directory.name,
        "text": text.name,
        "tokens": sum(ids[:, 1:].numel() for ids in batches),
        "window": WINDOW,
        "seed": SEED,
        "machine": {"processor": processor(), "threads": torch.get_num_threads(), "system": platform.system()},
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            COMMAND: command("--version").split()[-1],
        },
        "scores": scores,
        "runs": [asdict(run) for run in runs],
    }


def show(result: dict[str, object]) -> None:
    runs = [Run(**run) for run in result["runs"]]
    base = runs[0].loss
    print(f"{result['model']} on {result['text']}: {result['tokens']} tokens, nats per token\n")
    print(f"{'choice':20} {'without attention in':22} {'loss':>8} {'rise':>8}")
    for run in runs:
        print(f"{run.choice:20} {', '.join(map(str, run.layers)):22} {run.loss:8.4f} {run.loss - base:+8.4f}")
    drawn = [run.loss - base for run in runs if run.choice == "random"]
    print(
        f"\n{len(drawn)} random choices rise by {min(drawn):.4f} to {max(drawn):.4f}, "
        f"median {statistics.median(drawn):.4f}, mean {statistics.mean(drawn):.4f}"
    )
    for run in runs:
        if run.choice in (*READINGS, CRITERION):
            worse = sum(rise > run.loss - base for rise in drawn)
            print(f"{run.choice} beats {worse} of {len(drawn)} of them")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=ROOT / "fixtures/sotu-5m", help="a Llama checkpoint")
    parser.add_argument("--text", type=Path, default=ROOT / "fixtures/heldout.txt", help="one text a line")
    parser.add_argument("--draws", type=int, default=20, help="number of random choices")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/heldout_loss.json")
    args = parser.parse_args()

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    result = measure(args.model, args.text, args.draws)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(result, indent=1) + "\n")
    show(result)


if __name__ == "__main__":
    main()
