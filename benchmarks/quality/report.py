"""docs/evidence.md, docs/evidence-decoders.md and their pictures, from the stored results alone. Needs no GPU.

python -m benchmarks.quality.report             (--check: are they what the results say?)
"""

import argparse
import json
import sys
import textwrap
from pathlib import Path

from benchmarks.quality.answers import read
from benchmarks.quality.blocks import against_random, blocks, judged, larger, main_table, primary, told_apart
from benchmarks.quality.drawing import depth_picture, loss_picture, scatter_picture
from benchmarks.quality.evidence import evidence
from benchmarks.quality.runs import PRIMARY, Model, by_kind, done, pieces
from benchmarks.quality.speed import speed_text, throughput_tables
from benchmarks.quality.tables import (
    check_text,
    correlation_table,
    depth_table,
    kind_table,
    machine_text,
    run_table,
    suppression_table,
    task_table,
)

ROOT = Path(__file__).parents[2]
QUALITY = ROOT / "benchmarks/results/quality"
THROUGHPUT = ROOT / "benchmarks/results/throughput"
OUT = ROOT / "docs/evidence.md"
DECODERS = ROOT / "docs/evidence-decoders.md"

TEXT = """# Evidence: decoders without constants

Blocks A to C: what pruning attention sublayers by Gate-Norm costs and gives small decoders that we
trained; [evidence.md](evidence.md) has a public model and the answers. Made by
`benchmarks/quality/report.py` from the files in `benchmarks/results/`; nothing here is written by hand but the
prose. The rules were fixed before the runs that count: [PROTOCOL.md](../benchmarks/quality/PROTOCOL.md).

## Main result

{primary}

### Every criterion, every k

Loss rise minus that of random choices, mean over a block's models with its 95 % interval (paired t), and on how
many models it was below random. **Bold**: the interval is wholly below 0 (better than chance); _slanted_: wholly
above (worse). Only `per-head` at {primary_count} on block A was named in advance, and what block A chose is judged
on block B; the others are not corrected for being many.

{judged}

### Larger models

{larger}

{main}

`cosine`, `ratio`, `single` and `greedy` look at text; the rest only at weights. `greedy` sees the loss itself
and is the upper bound.

![Loss rise against the number of sublayers dropped]({loss_picture})

Lines: mean over seeds, band from the lowest to the highest seed.

### By kind, {primary_count}

Loss rise minus random's, mean over seeds (lowest to highest).

{kinds}

## Does a score tell what a layer is worth?

Spearman's rank correlation of each score with the rise of held-out loss when that layer's attention alone is
silenced, layers 1 to L - 1: mean over seeds (each seed). A good criterion has +1.

{correlations}

## Is low coupling suppressed output?

The claim behind Gate-Norm: weakly coupled sublayers add little to the residual stream. Spearman's correlation
of the score with ‖a‖ / ‖x‖ and 1 - cos(x, x + a) over layers 1 to L - 1; a is what attention adds to the stream
x, on calibration text.

{suppression}

![Score against cosine and loss rise]({scatter_picture})

## Along training

The paper expects late layers' scores to fall. Correlation of the `per-head` score with depth (negative: it
falls with depth) and with the loss rise of each layer alone; mean over seeds (lowest to highest).

{depth}

![Score by depth along training]({depth_picture})

## Small tasks

**Closing brackets** (the right one of three, in held-out text). {closing}

**Copying** (256 tokens of held-out text, the second time). {copying}

**Induction** (256 random tokens, the second time). {induction}

## Does silencing in memory equal pruning?

{checks}

## Speed and memory

{speed}

Models are made with random weights from a config that the command wrote (`benchmarks/throughput/`). **The
step-by-step decode numbers, and prefill of 512 tokens at batch 1, should not be used as gains**: there the
Python process that launches kernels is the limit, its speed varied by a factor of two to four between equal
steps, and the unpruned model, always the first of its shape, was slower than pruning explains (why was not
found). With transformers 5.17 a pruned layer still caches two zeros a token.

{throughput}

## Every run

{runs}

## Machines and commands

Before it: `python benchmarks/quality/corpus.py --fetched .corpus/packages --out .corpus/tokens` makes the text.
Training text: {corpus}

{machines}

## What this does not show

- Models of about 20 M (blocks A and B) and 80 to 91 M parameters (block C), trained on {tokens} tokens, are not
  large language models. Block C differs from the others in size and in training at once, so its result can't be
  laid to one of them, and an earlier, overfit model of 129 M was where `per-head` did worst. `gqa-48` is least
  trained of all. Nothing here says how a 7B or 13B model behaves; the paper's own models could not be had.
- Less than one pass over code and manuals in English; other text may give other layers.
- {seeds}; models of one kind are alike, so that n counts for less than it says (the bootstrap over kinds allows
  for that).
- Loss and three toy tasks are no downstream benchmark, and nothing was trained after pruning.
- Speed was measured on random weights through transformers, not in a serving engine, and not in llama.cpp.
- `folded in memory` (norms folded into `per-head`) is computed by `criteria.py`. By the protocol it does not become
  the command's `--fold-norm` unless it is chosen on block A and judged on block B; see above whether it was.
"""


def wrapped(text: str) -> str:
    """Plain paragraphs filled anew; headings, tables, lists and pictures as they are."""
    return "\n\n".join(
        part if part[:1] in "|#!-" else textwrap.fill(part, 116, break_long_words=False, break_on_hyphens=False)
        for part in text.split("\n\n")
    )


def training_tokens(corpus: dict) -> int:
    return sum(f["tokens"] for f in corpus["files"] if f["file"].startswith("train"))


def report() -> str:
    found, speed = pieces(QUALITY), [json.loads(p.read_text()) for p in sorted(THROUGHPUT.glob("*.json"))]
    models = done(found)
    groups, parts = by_kind(models), blocks(models)
    corpus = json.loads((QUALITY / "corpus.json").read_text())
    shown = [
        name for name in ("per-head", "joint", "stored", "last", "cosine", "greedy") if name in models[0].criteria()
    ]
    corpus_tokens = training_tokens(corpus)
    used = {(training_tokens(piece["corpus"]), piece["recipe"]["tokens"]) for piece in found}
    return TEXT.format(
        primary=primary(parts),
        primary_count=f"k = {PRIMARY}",
        judged=judged(parts),
        larger=larger(parts),
        speed=speed_text(speed),
        main="\n\n".join(f"**Block {name}** ({len(b)} models)\n\n{main_table(b)}" for name, b in parts.items()),
        loss_picture=loss_picture(groups, shown),
        kinds=kind_table(groups),
        correlations=correlation_table(groups),
        suppression=suppression_table(groups),
        scatter_picture=scatter_picture(groups),
        depth=depth_table(groups),
        depth_picture=depth_picture(groups),
        closing=task_table(models, "closing"),
        copying=task_table(models, "copying"),
        induction=task_table(models, "induction"),
        checks=check_text(models),
        throughput=throughput_tables(speed) or "Not measured yet.",
        runs=run_table(found),
        machines=machine_text([*found, *speed]),
        corpus=(
            f"of the {corpus_tokens / 1e6:.1f} M tokens that it makes, "
            + " and in block C ".join(
                f"{t / 1e6:.1f} M used, {n / 1e6:.0f} M seen by each model" for t, n in sorted(used)
            )
            + "; "
            f"{100 * corpus['heldout_20_word_sequences_in_train']:.2f} % of the 20-word sequences of held-out text "
            "also stand in the training text."
        ),
        tokens=" and ".join(f"{n / 1e6:.0f} M" for n in sorted({p["recipe"]["tokens"] for p in found})),
        seeds=", ".join(f"{len(m)} seeds of {k}" for k, m in groups.items()),
    )


def earlier(found: dict[str, list[Model]]) -> str:
    """The main result of blocks A to C."""
    every = against_random([m for block in found.values() for m in block])
    larger_ones = against_random(found["C"])
    return (
        f"the rise of `per-head` at k = {PRIMARY} minus random's is {every} over all of them ({told_apart(every)} "
        f"chance) and {larger_ones} on the {larger_ones.n} larger ones ({told_apart(larger_ones)} chance)."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    args = parser.parse_args()
    texts = {
        DECODERS: report(),
        OUT: evidence(*read(), earlier(blocks(done(pieces(QUALITY))))),
    }
    for path, text in texts.items():
        whole = wrapped(text.rstrip("\n")) + "\n"
        if args.check and path.read_text("utf-8") != whole:
            sys.exit(f"{path} is not what the results say; run python -m benchmarks.quality.report")
        path.write_text(whole, "utf-8")
        print(f"{path}: {len(text)} characters")


if __name__ == "__main__":
    main()
