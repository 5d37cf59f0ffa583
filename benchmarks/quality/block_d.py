"""Block D of the protocol: trains one decoder, replaces its attention by nothing and by constants, judges both.

    python -m benchmarks.quality.block_d --tokens .corpus/tokens --model mha-12x768:4 --work .corpus/models \
        --out mha-12x768-s4.json

The checkpoint stays in `--work`; a run that finds it there does not train again.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
import transformers
from transformers import PreTrainedModel

import gatenorm_stream
from benchmarks.quality.data import Tokens, load, windows
from benchmarks.quality.evaluation import CALIBRATION, HELD_OUT, evenly
from benchmarks.quality.kinds import CONTEXT, KINDS
from benchmarks.quality.measure import DEFAULT, PRIMARY, scored
from benchmarks.quality.measure import load as load_model
from benchmarks.quality.piece import machine, recorded_command
from benchmarks.quality.replaced import constants_of, exchanged, mean_loss, means_in_order, sublayers
from benchmarks.quality.train import Recipe, train
from benchmarks.quality.ways import Way, counts, greedy, ways
from gatenorm_stream.families.open import open_model
from gatenorm_stream.measuring.forward import run
from gatenorm_stream.measuring.numpy_decoder import numpy_decoder
from gatenorm_stream.sources.open import open_source

RECIPE = replace(Recipe(), tokens=74_000_000, learning_rate=1e-3, keep=(1.0,))
BATCH = 64
OTHER_CONSTANTS = (128, 2048)
"""Tokens of the constants that are reported beside those of 512."""
SECONDARY = (DEFAULT, "influence")


def seen(model: PreTrainedModel, choosing: torch.Tensor, vocabulary: int) -> dict[str, list[float]]:
    """The criteria that a pass tells; `choosing` is (n, 512), 2,048 tokens at least."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randint(0, vocabulary, (1, CONTEXT), generator=generator).to(choosing.device)
    short, own = sublayers(model, choosing[:1, :128]), sublayers(model, choosing[:1])
    long, random_ids = sublayers(model, choosing[: 2048 // CONTEXT]), sublayers(model, noise)
    return {
        "influence 128": [s.influence for s in short],
        "influence": [s.influence for s in own],
        "influence 2048": [s.influence for s in long],
        "influence random": [s.influence for s in random_ids],
        "fluctuation": [s.fluctuation for s in long],
    }


def judge_all(
    model: PreTrainedModel,
    wanted: Sequence[Way],
    constants: Mapping[str, torch.Tensor | None],
    losses: Callable[[], Mapping[str, float]],
) -> list[dict[str, object]]:
    """Each way with each kind of constants; what is the same is judged once."""
    known: dict[tuple[tuple[int, ...], str], Mapping[str, float]] = {}
    told = []
    for way in wanted:
        for name, rows in constants.items():
            if len(name.split()) > 1 and way.criterion not in SECONDARY:
                continue
            if (way.layers, name) not in known:
                with exchanged(model, constants_of(model, way.layers, rows)):
                    known[way.layers, name] = losses()
            told.append({**way._asdict(), "constants": name, **known[way.layers, name]})
    return told


def greedy_ways(
    model: PreTrainedModel, choosing: torch.Tensor, judged: torch.Tensor, batch: int
) -> dict[str, list[Way]]:
    """Plain, and with constants throughout."""

    def loss(rows: torch.Tensor | None) -> Callable[[tuple[int, ...]], float]:
        def of(dropped: tuple[int, ...]) -> float:
            with exchanged(model, constants_of(model, dropped, rows)):
                return mean_loss(model, judged, batch)

        return of

    layers = model.config.num_hidden_layers
    return {"none": greedy(loss(None), layers), "means": greedy(loss(choosing), layers)}


def measure(directory: Path, tokens: Tokens, device: str, seed: int, scale: int) -> dict[str, object]:
    model = load_model(directory, device)
    layers = model.config.num_hidden_layers
    held_out = evenly(windows(tokens.heldout, CONTEXT), HELD_OUT // scale)
    validation = windows(tokens.validation, CONTEXT)
    calibration = evenly(validation, max(2, CALIBRATION // scale))
    choosing = evenly(validation, 2048 // CONTEXT)[:, :CONTEXT]
    constants = {"none": None, "means": choosing[:1]}
    constants |= {"means 128": choosing[:1, :128], "means 2048": choosing}

    def losses() -> dict[str, float]:
        return {"loss": mean_loss(model, held_out, BATCH)}

    scores = scored(directory, [counts(layers)[PRIMARY]])
    scores = {name: values for name, values in scores.items() if "folded" not in name}
    scores |= seen(model, choosing, tokens.vocabulary)
    told = judge_all(model, list(ways(scores, layers, seed)), constants, losses)
    for name, steps in greedy_ways(model, choosing[:1], calibration, BATCH).items():
        told += judge_all(model, steps, {name: constants[name]}, losses)
    return {
        "layers": layers,
        "counts": counts(layers),
        "unpruned": losses(),
        "scores": scores,
        "varying": [s.varying for s in sublayers(model, choosing[:1])],
        "single": [judge_all(model, [Way("", "", (n,))], {"none": None}, losses)[0]["loss"] for n in range(layers)],
        "choices": told,
        "checks": checks(directory, model, told, choosing[:1], held_out, device),
    }


def checks(
    directory: Path,
    model: PreTrainedModel,
    told: Sequence[Mapping[str, object]],
    choosing: torch.Tensor,
    held_out: torch.Tensor,
    device: str,
) -> dict[str, object]:
    """What the package writes with these constants, read by transformers, and its own pass, beside the above."""
    own = next(t for t in told if (t["criterion"], t["count"], t["constants"]) == (DEFAULT, PRIMARY, "means"))
    means = means_in_order(model, choosing, own["layers"])
    vectors = {layer: mean.float().cpu().numpy().astype("<f4").tobytes() for layer, mean in means.items()}
    found: dict[str, object] = {"in_memory": own["loss"]}
    try:
        row = choosing[0].cpu().numpy().astype(np.int64)
        with open_model(open_source(directory)) as opened, numpy_decoder(opened, threads=4) as decoder:
            found["influence_of_own_pass"] = [s.influence for s in run(decoder, row, row).sublayers]
        with tempfile.TemporaryDirectory() as parent:
            out = Path(parent) / "pruned"
            plan = gatenorm_stream.plan(directory, layers=own["layers"], format="transformers")
            gatenorm_stream.prune(replace(plan, constants=vectors), out)
            gatenorm_stream.verify(out, against=directory)
            found["written"] = mean_loss(load_model(out, device, trust_remote_code=True), held_out, BATCH)
    except Exception as error:
        found["error"] = f"{type(error).__name__}: {error}"[:500]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=Path, required=True, help="folder that corpus.py wrote")
    parser.add_argument("--model", required=True, help="KIND:SEED")
    parser.add_argument("--work", type=Path, required=True, help="folder for checkpoints")
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--train-tokens", type=int, default=RECIPE.tokens, help="another number, for trials")
    parser.add_argument("--batch", type=int, default=RECIPE.batch, help="another number of windows, for trials")
    parser.add_argument("--scale", type=int, default=1, help="divides the text measured on, for trials")
    args = parser.parse_args()
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    torch.set_float32_matmul_precision("high")
    kind, _, seed = args.model.partition(":")
    recipe = replace(RECIPE, tokens=args.train_tokens, batch=args.batch)
    tokens = load(args.tokens).to(args.device)
    told = {"kind": kind, "seed": int(seed), "command": recorded_command(), "machine": machine(args.device)}
    work = args.work / f"{kind}-s{seed}"
    begun = time.monotonic()
    kept = work / f"{kind}-s{seed}-{recipe.steps:06}"
    if not kept.exists():
        last = train(KINDS[kind], int(seed), tokens, recipe, work, compiled=args.device == "cuda")[-1]
        told |= {"training": asdict(last)}
        print(f"{args.model} trained: {time.monotonic() - begun:.0f} s, loss {last.train_loss:.3f}", flush=True)
    torch.cuda.empty_cache()
    trained = time.monotonic()
    told |= {"recipe": asdict(recipe), **measure(kept, tokens, args.device, int(seed), args.scale)}
    told["seconds"] = {"training": trained - begun, "judging": time.monotonic() - trained}
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(told, separators=(",", ":")) + "\n")
    print(f"{args.model} judged: {told['seconds']} {told['checks']}", flush=True)


if __name__ == "__main__":
    main()
