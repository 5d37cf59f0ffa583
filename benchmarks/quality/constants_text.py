"""Block D in docs/evidence.md: answers first, then the public model, then the decoders. All from stored results."""

import json
import re
import statistics
from collections.abc import Sequence
from pathlib import Path

from benchmarks.quality.answers import COUNTS, DEFAULT, MEANS, PLAIN, PRIMARY, Judged
from benchmarks.quality.runs import table

REAL = Path(__file__).parents[1] / "results/real_model.json"
CRITERIA = (
    *("per-head", "joint", "stored", "influence 128", "influence", "influence 2048", "influence random"),
    *("influence other text", "fluctuation", "first", "last", "spread", "random 1", "random 2", "greedy"),
)


def shown(values: Sequence[float]) -> str:
    """A rise, or the mean of several with the lowest and highest."""
    if len(values) == 1:
        return f"{values[0]:.3f}"
    return f"{statistics.mean(values):.3f} ({min(values):.2f} to {max(values):.2f})"


def rise_table(model: Judged, constants: str, measure: str = "loss") -> str:
    head = ("criterion", *(f"{model.told['counts'][count]} ({count})" for count in COUNTS))
    rows = []
    for name in CRITERIA:
        found = [model.rises(name, count, constants, measure) for count in COUNTS]
        if all(found):
            rows.append((f"`{name}`", *map(shown, found)))
    return table(head, rows)


def constants_table(model: Judged) -> str:
    """The default and influence by how many tokens, of which text, the constants were taken."""
    names = {"means 128": "128, built-in", MEANS: "512, built-in", "means 2048": "2,048, built-in"}
    names |= {"means other": "2,048, WikiText-2 validation"}
    rows = []
    for criterion in (DEFAULT, "influence"):
        for constants, title in names.items():
            cells = [shown(model.rises(criterion, count, constants)) for count in COUNTS]
            rows.append((f"`{criterion}`", title, *cells))
    return table(("criterion", "constants of", *COUNTS), rows)


def decoder_table(decoders: Sequence[Judged]) -> str:
    rows = []
    for m in decoders:
        plain, means = (m.rise(DEFAULT, PRIMARY, how) for how in (PLAIN, MEANS))
        rows.append(
            (
                m.name,
                f"{m.told['unpruned']['loss']:.3f}",
                f"{plain:.3f}",
                f"{means:.3f}",
                f"{means - plain:+.3f}",
                f"{shown(m.rises('random 1', PRIMARY, MEANS))}; {m.beaten('random 1', MEANS)} of 20",
                f"{m.rise('influence', PRIMARY, MEANS):.3f}",
                f"{m.rise('greedy', PRIMARY, MEANS):.3f}",
                f"{m.theory():+.2f}",
            )
        )
    head = (
        *("decoder", "unpruned", "plain", "constants", "change", "random 1; lower than"),
        *("influence", "greedy", "correlation"),
    )
    return table(head, rows)


def decoder_rises(decoders: Sequence[Judged]) -> str:
    rows = []
    for name in CRITERIA:
        if not decoders[0].rises(name, PRIMARY, PLAIN):
            continue
        cells = []
        for count in COUNTS:
            plain, means = (statistics.mean(m.rise(name, count, how) for m in decoders) for how in (PLAIN, MEANS))
            cells.append(f"{plain:.3f} / {means:.3f}")
        rows.append((f"`{name}`", *cells))
    return table(("criterion", *COUNTS), rows)


def single_correlations(models: Sequence[Judged]) -> str:
    """Of each criterion with what each layer alone costs, layers 1 to L - 1."""
    from benchmarks.quality.tables import spearman

    names = [n for n in CRITERIA if all(n in m.told["scores"] for m in models[1:])]
    rows = []
    for name in names:
        values = [
            spearman(m.told["scores"][name][1:], m.told["single"][1:]) if name in m.told["scores"] else float("nan")
            for m in models
        ]
        rows.append((f"`{name}`", f"{values[0]:+.2f}", f"{statistics.mean(values[1:]):+.2f}", span(values[1:])))
    return table(("criterion", "SmolLM2", "decoders, mean", "lowest to highest"), rows)


def span(values: Sequence[float]) -> str:
    return f"{min(values):+.2f} to {max(values):+.2f}"


ORDER = ("unpruned", "gate-norm", "gate-norm, constants", "influence", "influence, constants")


def real_table() -> str:
    runs, rows = json.loads(REAL.read_text())["runs"], []
    whole = runs[0]
    for run in sorted(runs, key=lambda run: (run["count"], ORDER.index(run["way"]))):
        own, base = run["llama.cpp"], whole["llama.cpp"]
        rises = [f"{own['loss'][name] - base['loss'][name]:+.3f}" for name in ("prose", "code")]
        longer = run.get("transformers")
        in_longer = f"{longer['loss']['prose'] - whole['transformers']['loss']['prose']:+.3f}" if longer else ""
        rows.append(
            (
                run["count"] or "none",
                run["way"],
                *rises,
                in_longer,
                f"{own['cache_mib']:.1f}",
                f"{own['file_bytes'] / 1e6:.1f}",
                f"{own['tokens_a_second']:.0f}",
                "yes" if " Paris" in own["goes_on"]["The capital of France is"] else "no",
            )
        )
    head = (
        "gone",
        "how",
        "prose, llama.cpp",
        "code, llama.cpp",
        "prose, transformers",
        "KV cache, MiB",
        "file, MB",
        "tokens/s",
        "says Paris",
    )
    return table(head, rows)


SHOWN = 60
"""Characters of how a model goes on: six columns of them fit 1,280 pixels."""


def _plain(text: str) -> str:
    """Text that means nothing in Markdown, in a cell of a table."""
    return re.sub(r"([\\`*_<>\[\]])", r"\\\1", text.replace("|", "/"))


def samples() -> str:
    """How the model goes on in llama.cpp, word for word."""
    told = json.loads(REAL.read_text())
    at_default = [r for r in told["runs"] if r["count"] in (0, 6)]
    beginnings = list(at_default[0]["llama.cpp"]["goes_on"])
    rows = []
    for beginning in beginnings:
        said = [run["llama.cpp"]["goes_on"][beginning] for run in at_default]
        rows.append((f"`{beginning}`", *(_plain(" ".join(text.split())[:SHOWN]) for text in said)))
    return table(("beginning", *(run["way"] for run in at_default)), rows)
