"""docs/evidence.md and its pictures, from the stored results alone. Needs numpy and matplotlib, no GPU.

python benchmarks/quality/report.py
"""

import json
import math
import statistics
import textwrap
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from blocks import blocks, judged, main_table, primary
from intervals import spearman
from runs import COUNTS, DEFAULT, PRIMARY, Model, by_kind, done, pieces, table

mpl.use("Agg")
mpl.rcParams |= {"svg.hashsalt": "gatenorm", "svg.fonttype": "none", "font.size": 9, "axes.grid": True}
mpl.rcParams |= {"grid.alpha": 0.3, "axes.spines.top": False, "axes.spines.right": False}

ROOT = Path(__file__).parents[2]
QUALITY = ROOT / "benchmarks/results/quality"
THROUGHPUT = ROOT / "benchmarks/results/throughput"
OUT = ROOT / "docs/evidence.md"
PICTURES = ROOT / "docs/evidence"
COLOURS = {"per-head": "C3", "joint": "C1", "stored": "C4", "cosine": "C0", "greedy": "C2", "last": "C5"}
MENDED = (
    "The file that travelled with outputs named a config class, which transformers 5.17 refuses; "
    "it no longer does, and piece 06 ran with the mended one."
)
GIT = {"metadata": {"Date": None}}  # so that the same data gives the same bytes


def save(figure: plt.Figure, name: str) -> str:
    PICTURES.mkdir(parents=True, exist_ok=True)
    figure.tight_layout()
    figure.savefig(PICTURES / f"{name}.svg", bbox_inches="tight", **GIT)
    plt.close(figure)
    return f"evidence/{name}.svg"


def panels(groups: dict[str, list[Model]], height: float = 2.9) -> tuple[plt.Figure, np.ndarray]:
    figure, axes = plt.subplots(1, len(groups), figsize=(3.1 * len(groups), height), squeeze=False)
    for axis, name in zip(axes[0], groups, strict=True):
        axis.set_title(name)
    return figure, axes[0]


def loss_picture(groups: dict[str, list[Model]], criteria: Sequence[str]) -> str:
    figure, axes = panels(groups)
    x = np.arange(len(COUNTS))
    for axis, models in zip(axes, groups.values(), strict=True):
        drawn = np.array([[np.percentile(m.values("random", c), (5, 50, 95)) for c in COUNTS] for m in models])
        low, middle, high = drawn.mean(0).T
        axis.fill_between(x, low, high, color="0.8", label="random, 5 to 95 %")
        axis.plot(x, middle, color="0.5", label="random, median")
        for name in criteria:
            seeds = np.array([[m.value(name, c) for c in COUNTS] for m in models])
            axis.plot(x, seeds.mean(0), color=COLOURS.get(name), label=name)
            axis.fill_between(x, seeds.min(0), seeds.max(0), color=COLOURS.get(name), alpha=0.2, linewidth=0)
        axis.set_yscale("log")
        axis.set_xticks(x, COUNTS, rotation=45)
    axes[0].set_ylabel("loss rise, nats per token")
    axes[-1].legend(fontsize=7, bbox_to_anchor=(1.02, 1), loc="upper left")
    return save(figure, "loss")


def depth_picture(groups: dict[str, list[Model]]) -> str:
    figure, axes = panels(groups)
    for axis, models in zip(axes, groups.values(), strict=True):
        stages = [[*m.told["along_training"], m.final] for m in models]
        for at in range(len(stages[0])):
            scores = np.array([s[at]["scores"][DEFAULT] for s in stages])
            share = stages[0][at]["step"] / stages[0][-1]["step"]
            relative = (scores / scores.mean(1, keepdims=True)).mean(0)
            axis.plot(relative, color=plt.cm.viridis_r(0.15 + 0.85 * share), label=f"{share:.0%} of training")
        axis.set_xlabel("layer")
    axes[0].set_ylabel(f"{DEFAULT} score / mean of layers")
    axes[-1].legend(fontsize=7)
    return save(figure, "depth")


def scatter_picture(groups: dict[str, list[Model]]) -> str:
    figure, axes = plt.subplots(3, len(groups), figsize=(3.1 * len(groups), 7.2), squeeze=False)
    rows: tuple[tuple[str, Callable[[Model], list[float]]], ...] = (
        ("norm of a / norm of x", lambda m: m.final["scores"]["ratio"]),
        ("1 - cos(x, x + a)", lambda m: m.final["scores"]["cosine"]),
        ("loss rise without it", lambda m: m.final["single_rise"]),
    )
    for column, (name, models) in enumerate(groups.items()):
        axes[0][column].set_title(name)
        for row, (label, values) in enumerate(rows):
            axis = axes[row][column]
            for n, model in enumerate(models):
                scores, y = model.final["scores"][DEFAULT], np.maximum(values(model), 1e-4)
                axis.scatter(scores[1:], y[1:], s=9, color=f"C{n}", label=f"seed {model.seed}")
            axis.set_yscale("log")
            axis.set_xlabel(f"{DEFAULT} score" if row == 2 else "")
            axis.set_ylabel(label if column == 0 else "")
    axes[0][-1].legend(fontsize=7)
    return save(figure, "suppression")


def kind_table(groups: dict[str, list[Model]]) -> str:
    names = models_criteria(groups)
    rows = []
    for name in names:
        row = [f"`{name}`"]
        for models in groups.values():
            values = [m.against_random(name, PRIMARY) for m in models]
            row.append(f"{statistics.mean(values):+.3f} ({min(values):+.3f} to {max(values):+.3f})")
        rows.append(row)
    return table(("criterion", *(f"{k} (n = {len(m)})" for k, m in groups.items())), rows)


def models_criteria(groups: dict[str, list[Model]]) -> list[str]:
    first = next(iter(groups.values()))[0]
    return [name for name in first.criteria() if name != "random"]


def task_table(models: list[Model], measure: str) -> str:
    names = models[0].criteria()
    base = statistics.mean(m.final["unpruned"][measure] for m in models)
    rows = [
        (f"`{name}`", *(f"{100 * statistics.mean(m.value(name, c, measure) for m in models):+.1f}" for c in COUNTS))
        for name in names
    ]
    return f"Unpruned: {base:.1%}. Change in percentage points, mean over models:\n\n" + table(
        ("criterion", *COUNTS), rows
    )


def correlation_table(groups: dict[str, list[Model]]) -> str:
    first = next(iter(groups.values()))[0]
    rows = []
    for name in first.final["scores"]:
        row = [f"`{name}`"]
        for models in groups.values():
            values = [spearman(m.final["scores"][name][1:], m.final["single_rise"][1:]) for m in models]
            row.append(f"{statistics.mean(values):+.2f} ({', '.join(f'{v:+.2f}' for v in values)})")
        rows.append(row)
    return table(("criterion", *groups), rows)


def suppression_table(groups: dict[str, list[Model]]) -> str:
    rows = []
    for name in (n for n in next(iter(groups.values()))[0].final["scores"] if n.split()[0] in COLOURS):
        for other in ("ratio", "cosine"):
            if name in ("cosine", "last"):
                continue
            row = [f"`{name}`", other]
            for models in groups.values():
                values = [spearman(m.final["scores"][name][1:], m.final["scores"][other][1:]) for m in models]
                row.append(f"{statistics.mean(values):+.2f} ({', '.join(f'{v:+.2f}' for v in values)})")
            rows.append(row)
    return table(("score", "against", *groups), rows)


def depth_table(groups: dict[str, list[Model]]) -> str:
    """Rank correlation of the score with depth, checkpoint by checkpoint."""
    rows = []
    for kind, models in groups.items():
        stages = [[*m.told["along_training"], m.final] for m in models]
        for at, first in enumerate(stages[0]):
            scores = [s[at]["scores"][DEFAULT] for s in stages]
            depth = [spearman(s[1:], range(1, len(s))) for s in scores]
            rise = [spearman(s[at]["scores"][DEFAULT][1:], s[at]["single_rise"][1:]) for s in stages]
            losses = [s[at]["validation_loss"] for s in stages]
            rows.append(
                (
                    kind,
                    f"{first['tokens'] / 1e6:.1f} M",
                    f"{statistics.mean(losses):.3f}",
                    f"{statistics.mean(depth):+.2f} ({min(depth):+.2f} to {max(depth):+.2f})",
                    f"{statistics.mean(rise):+.2f} ({min(rise):+.2f} to {max(rise):+.2f})",
                )
            )
    return table(
        ("kind", "tokens seen", "validation loss", "score with depth", "score with single-layer rise"), rows
    )


def run_table(found: list[dict]) -> str:
    rows = []
    for piece in found:
        for run in piece["runs"]:
            final = run.get("final", {})
            losses = [c["validation_loss"] for c in [*run.get("along_training", []), *([final] if final else [])]]
            late = ""
            if losses:
                late = "last is lowest" if losses[-1] == min(losses) else "last is not lowest"
            error = run.get("error", "").strip().splitlines()[-1:] or [""]
            seconds = run.get("seconds", {})
            note = late or error[0][:120].replace("|", "/")
            rows.append(
                (
                    run["run"],
                    run["kind"],
                    run["seed"],
                    run["status"],
                    f"{final['train_loss']:.3f}" if final else "",
                    f"{losses[-1]:.3f}" if losses else "",
                    f"{seconds.get('training', '')} / {seconds.get('measuring', '')}" if seconds else "",
                    note,
                )
            )
    head = ("run", "kind", "seed", "status", "training loss", "validation loss", "seconds", "note")
    return table(head, rows)


def check_text(models: list[Model]) -> str:
    made = [c for m in models for c in m.final["checks"]]
    good = [c for c in made if "loss" in c]
    failed = [c for c in made if "error" in c]
    worst = max((abs(c["loss"] - c["in_memory"]) for c in good), default=math.nan)
    forms = ", ".join(sorted({f"`{c['written']}`" for c in good}))
    text = (
        f"{len(good)} of {len(made)} directories that the command wrote ({forms}) were read back by "
        "transformers; their held-out loss differs from that of silencing the same layers in memory by at most "
        f"{worst:.1e}."
    )
    told = Counter((c["format"], c["error"].partition(" (model has")[0][:200]) for c in failed)
    text += "".join(f"\n\nFailed, {n} times ({form}): `{error}`." for (form, error), n in told.items())
    return f"{text} {MENDED}" if failed else text


def machine_text(found: Sequence[dict]) -> str:
    lines = []
    for piece in found:
        m = piece["machine"]
        name = f"piece {piece['piece']}" if "piece" in piece else "throughput"
        versions = ", ".join(f"{k} {m[k]}" for k in ("python", "torch", "transformers", "gatenorm-stream"))
        lines.append(f"- {name}: {m['device']}, {m['processors']} processors ({m['processor']}); {versions}")
        lines.append(f"  `{piece['command']}`")
    return "\n".join(lines)


def speed_text(found: Sequence[dict]) -> str:
    """Ranges of the 13B shape's gain at the paper's counts, where the GPU and not the launching of kernels "
    "is timed."""
    models = {m["pruned"]: m["cases"] for r in found for m in r["models"] if m["shape"] == "13b" and "cases" in m}
    parts = []
    for count in (8, 16):
        gains: dict[str, list[float]] = {"prefill": [], "decode": []}
        for before, after in zip(models[0], models[count], strict=True):
            for name, mode, key in (
                ("prefill", "eager", "prefill_seconds"),
                ("decode", "graph", "decode_step_seconds"),
            ):
                small = name == "prefill" and before["batch"] * before["context"] < 2048
                if key in before[mode] and key in after[mode] and not small:
                    gains[name].append(before[mode][key] / after[mode][key])
        told = ", ".join(f"{name} {min(v):.2f}x to {max(v):.2f}x" for name, v in gains.items())
        parts.append(f"with {count} of 40 sublayers gone {told}")
    return (
        f"13B shape on one H100, bfloat16, no compilation: {'; '.join(parts)} (decode as a CUDA graph; prefill "
        "of 2,048 tokens or more), where the GPU is the limit. The paper reports 1.1x to 1.3x for 8 to 16 of "
        "40. The KV cache shrinks by the share of sublayers that go."
    )


def throughput_tables(found: Sequence[dict]) -> str:
    parts = []
    for result in found:
        for shape in dict.fromkeys(m["shape"] for m in result["models"]):
            models = sorted((m for m in result["models"] if m["shape"] == shape), key=lambda m: m["pruned"])
            missing = [m for m in models if m["status"] != "done"]
            models = [m for m in models if m["status"] == "done"]
            if len(models) < 2:
                parts += [f"{shape}, {m['pruned']} pruned: {m['status']} (`{result['command']}`)." for m in missing]
                continue
            layers = models[0]["layers"]
            cases = list(dict.fromkeys((c["batch"], c["context"]) for m in models for c in m["cases"]))
            for title, mode, key, form in (
                ("prefill, tokens/s", "eager", "prefill_tokens_per_second", "{:,.0f}"),
                ("decode step by step, tokens/s", "eager", "decode_tokens_per_second", "{:,.1f}"),
                ("decode as a CUDA graph, tokens/s", "graph", "decode_tokens_per_second", "{:,.1f}"),
                ("peak memory, GB", "eager", "peak_bytes", "{:.2f}"),
                ("KV cache, GB", "eager", "cache_bytes", "{:.3f}"),
            ):
                rows = []
                for batch, context in cases:
                    row: list[object] = [batch, context]
                    base = None
                    for model in models:
                        (one,) = [c for c in model["cases"] if (c["batch"], c["context"]) == (batch, context)]
                        value = one[mode].get(key)
                        if value is None:
                            failed = one[mode].get("failed", "")
                            row.append("out of memory" if failed == "out of memory" else "failed")
                            continue
                        if key.endswith("bytes"):
                            value /= 1e9
                        base = value if model["pruned"] == 0 else base
                        ratio = f" ({value / base:.2f}x)" if base and model["pruned"] else ""
                        row.append(form.format(value) + ratio)
                    rows.append(row)
                head = ("batch", "context", *(f"{m['pruned']} of {layers}" for m in models))
                parts.append(f"**{shape}: {title}**\n\n{table(head, rows)}")
            parts += [f"{shape}, {m['pruned']} pruned: {m['status']} (`{result['command']}`)." for m in missing]
    return "\n\n".join(parts)


TEXT = """# Evidence

What pruning attention sublayers by Gate-Norm costs and gives, as far as we could measure it. Made by
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

![Score against norm ratio, cosine and loss rise]({scatter_picture})

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

- Models of about 20 M parameters, trained on {tokens} tokens, are not large language models, and a longer
  training could change the picture: an earlier, overfit model was where `per-head` did worst. `gqa-48` is least
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


def report() -> str:
    found, speed = pieces(QUALITY), [json.loads(p.read_text()) for p in sorted(THROUGHPUT.glob("*.json"))]
    models = done(found)
    groups, parts = by_kind(models), blocks(models)
    corpus = json.loads((QUALITY / "corpus.json").read_text())
    shown = [
        name for name in ("per-head", "joint", "stored", "last", "cosine", "greedy") if name in models[0].criteria()
    ]
    there = sum(f["tokens"] for f in found[0]["corpus"]["files"] if f["file"].startswith("train"))
    corpus_tokens = sum(f["tokens"] for f in corpus["files"] if f["file"].startswith("train"))
    return TEXT.format(
        primary=primary(parts),
        primary_count=f"k = {PRIMARY}",
        judged=judged(parts),
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
            f"{there / 1e6:.1f} M tokens used of the {corpus_tokens / 1e6:.1f} M that it makes, "
            f"{found[0]['recipe']['tokens'] / 1e6:.0f} M of them seen by each model; "
            f"{100 * corpus['heldout_20_word_sequences_in_train']:.2f} % of the 20-word sequences of held-out text "
            "also stand in the training text."
        ),
        tokens=f"{found[0]['recipe']['tokens'] / 1e6:.0f} M",
        seeds=", ".join(f"{len(m)} seeds of {k}" for k, m in groups.items()),
    )


def main() -> None:
    text = wrapped(report()) + "\n"
    OUT.write_text(text)
    print(f"{OUT}: {len(text)} characters")


if __name__ == "__main__":
    main()
