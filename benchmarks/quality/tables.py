"""The tables of docs/evidence.md that tell of models and of runs."""

import math
import statistics
from collections import Counter
from collections.abc import Sequence

from benchmarks.quality.runs import COUNTS, DEFAULT, PRIMARY, Model, table
from gatenorm_stream.scoring.comparison import correlation, ranked

READINGS = ("per-head", "joint", "stored")
MENDED = (
    "The file that travelled with outputs named a config class, which transformers 5.17 refuses; "
    "it no longer does, and the pieces from 06 on ran with the mended one."
)


def spearman(a: Sequence[float], b: Sequence[float]) -> float:
    found = correlation(ranked(a), ranked(b))
    return math.nan if found is None else found


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
    for name in (n for n in next(iter(groups.values()))[0].final["scores"] if n.split()[0] in READINGS):
        for other in ("ratio", "cosine"):
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
    text += "".join(f"\n\nFailed, {n} times ({form}): ``{error}``." for (form, error), n in told.items())
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
