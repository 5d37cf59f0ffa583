"""What the protocol asks of blocks of models: the primary comparison; what is chosen on A and judged on B."""

import statistics
from collections.abc import Sequence

from benchmarks.quality.intervals import Interval, cluster_interval, t_interval
from benchmarks.quality.runs import COUNTS, DEFAULT, PRIMARY, Model, by_kind, table
from benchmarks.quality.tables import spearman

SIZES = {"A": 12, "B": 12, "C": 8}
"""Models of each block."""
LARGER = ("mha-12x768", "gqa-24x512")
SEES_TEXT = ("cosine", "ratio", "single", "greedy")


def blocks(models: Sequence[Model]) -> dict[str, list[Model]]:
    """Larger kinds are block C; of the others seeds 0 to 2 are block A, 3 to 5 block B."""
    small = [m for m in models if m.kind not in LARGER]
    found = {
        "A": [m for m in small if m.seed < 3],
        "B": [m for m in small if 3 <= m.seed < 6],
        "C": [m for m in models if m.kind in LARGER],
    }
    return {name: block for name, block in found.items() if block}


def clustered(models: Sequence[Model], criterion: str = DEFAULT) -> Interval:
    groups = by_kind(models).values()
    return cluster_interval([[m.against_random(criterion, PRIMARY) for m in group] for group in groups])


def against_random(models: Sequence[Model], criterion: str = DEFAULT) -> Interval:
    return t_interval([m.against_random(criterion, PRIMARY) for m in models])


def primary(found: dict[str, list[Model]]) -> str:
    """The protocol's one comparison, on block A; block B alone and both together beside it."""
    interval = against_random(found["A"])
    if interval.high < 0:
        verdict, follows = "is better than chance at this scale", "it stays the default"
    elif interval.low > 0:
        verdict, follows = "is worse than chance at this scale", "the docs and the command have to warn of it"
    else:
        verdict, follows = "is not shown to be better than chance", "it stays the default, being the paper's"
    parts = dict(found)
    for names in ("AB", "ABC"):
        if set(names) <= set(found):
            parts[", ".join(names)] = [m for name in names for m in found[name]]
    rows = [(n, len(ms), f"{against_random(ms)}", f"{clustered(ms)}", beaten(ms)) for n, ms in parts.items()]
    missing = [f"{len(ms)} of {SIZES[n]} of block {n}" for n, ms in found.items() if len(ms) < SIZES[n]]
    larger_too = ""
    if "C" in found:
        own = against_random(found["C"])
        larger_too = (
            f"**On the {own.n} larger models of block C alone it is {told_apart(own)} chance: {own}**; all blocks "
            f"together: {against_random([m for block in found.values() for m in block])}. "
        )
    state = f"Not yet all models are done: {', '.join(missing)}. " if missing else ""
    head = ("block", "models", "mean of d, paired t", "bootstrap over kinds and seeds", "better than random's mean")
    return (
        f"**`{DEFAULT}` {verdict}**, and by the protocol {follows}: the mean of d over the {interval.n} models of "
        f"block A is **{interval}** nats per token (95 % interval). {larger_too}{state}d is the loss rise "
        f"of `{DEFAULT}` at k = {PRIMARY} minus the mean rise of 20 random choices; negative is better than "
        "chance.\n\n"
        f"{table(head, rows)}\n\n{each_model([m for block in found.values() for m in block])}"
    )


def beaten(models: Sequence[Model], criterion: str = DEFAULT) -> str:
    return f"{sum(m.against_random(criterion, PRIMARY) < 0 for m in models)} of {len(models)}"


def each_model(models: Sequence[Model]) -> str:
    rows = []
    for model in models:
        drawn, own = model.values("random", PRIMARY), model.value(DEFAULT, PRIMARY)
        rows.append(
            (
                model.run,
                model.kind,
                model.seed,
                f"{model.final['unpruned']['loss']:.3f}",
                f"{own:.3f}",
                f"{statistics.mean(drawn):.3f}",
                f"{min(drawn):.3f} to {max(drawn):.3f}",
                f"{model.against_random(DEFAULT, PRIMARY):+.3f}",
                f"{sum(value > own for value in drawn)} of {len(drawn)}",
            )
        )
    head = ("run", "kind", "seed", "loss, unpruned", "`per-head` rise", "random, mean", "20 draws", "d", "beats")
    return table(head, rows)


def chosen(models: Sequence[Model]) -> str:
    """Of the criteria that see only weights, the one with the lowest mean d."""
    names = [name for name in models[0].criteria() if name not in ("random", *SEES_TEXT)]
    return min(names, key=lambda name: against_random(models, name).mean)


def judged(found: dict[str, list[Model]]) -> str:
    name = chosen(found["A"])
    text = f"Chosen on block A by the protocol, of the criteria that see only weights: `{name}`, mean of d "
    text += f"{against_random(found['A'], name)}."
    if "B" not in found:
        return f"{text} Block B, which judges it, has not been run."
    own = against_random(found["B"], name)
    return (
        f"{text} **On block B it is {told_apart(own)} chance: {own}** (bootstrap {clustered(found['B'], name)}); "
        f"against `{DEFAULT}` on the same models {against(found['B'], name, DEFAULT)}. The command has no "
        f"such reading. `first`, which looks at nothing, has {against_random(found['B'], 'first')} there, so depth "
        f"may explain much of it: from layer 1 on, the rank correlation of `{name}` with depth is "
        f"{depth(found, name)} on the models of all blocks."
    )


def larger(found: dict[str, list[Model]]) -> str:
    """The comparisons that the protocol named before block C was run."""
    if "C" not in found:
        return "Block C has not been run."
    models, name = found["C"], chosen(found["A"])
    random = {criterion: against_random(models, criterion) for criterion in (DEFAULT, name)}
    rows = [
        (f"`{criterion}`", "random", f"{interval}", beaten(models, criterion))
        for criterion, interval in random.items()
    ]
    for one, other in ((name, DEFAULT), (name, "first"), (DEFAULT, "first")):
        lower = sum(m.value(one, PRIMARY) < m.value(other, PRIMARY) for m in models)
        equal = sum(m.value(one, PRIMARY) == m.value(other, PRIMARY) for m in models)
        count = f"{lower} of {len(models)}" + (f", {equal} equal" if equal else "")
        rows.append((f"`{one}`", f"`{other}`", f"{against(models, one, other)}", count))
    depth = against(models, name, "first")
    head = ("criterion", "against", f"difference of loss rise at {PRIMARY}", "models on which it is lower")
    return (
        f"On the {len(models)} larger models `{DEFAULT}` is {told_apart(random[DEFAULT])} chance. `{name}` is "
        f"{told_apart(random[name])} chance, {told_apart(against(models, name, DEFAULT))} `{DEFAULT}` and "
        f"{told_apart(depth)} `first`, which looks at nothing. The last row was not named in advance.\n\n"
        f"{table(head, rows)}\n\n"
        f"**That holds while few go.** Where more do, the same criteria are no better than chance or worse, by the "
        f"loss rise minus random's (not named in advance): {further(models, (DEFAULT, name))}."
    )


def further(models: Sequence[Model], criteria: Sequence[str]) -> str:
    return "; ".join(
        f"`{criterion}` at {count} {t_interval([m.against_random(criterion, count) for m in models])}"
        for criterion in criteria
        for count in ("L/3", "L/2")
    )


def against(models: Sequence[Model], name: str, other: str) -> Interval:
    return t_interval([m.value(name, PRIMARY) - m.value(other, PRIMARY) for m in models])


def told_apart(difference: Interval) -> str:
    return "better than" if difference.high < 0 else "worse than" if difference.low > 0 else "not told apart from"


def depth(found: dict[str, list[Model]], name: str) -> str:
    """The lowest and highest Spearman correlation of a score with the layer's number."""
    scores = [m.final["scores"][name][1:] for block in found.values() for m in block]
    values = [spearman(s, range(len(s))) for s in scores]
    return f"{min(values):+.2f} to {max(values):+.2f}"


def main_table(models: list[Model]) -> str:
    names = [name for name in models[0].criteria() if name != "random"]
    rows = [
        ("`random` (mean rise)", *(f"{statistics.mean(m.value('random', c) for m in models):.3f}" for c in COUNTS))
    ]
    for name in names:
        cells = [t_interval([m.against_random(name, c) for m in models]) for c in COUNTS]
        better = [sum(m.against_random(name, c) < 0 for m in models) for c in COUNTS]
        marked = (f"**{i}**" if i.high < 0 else f"_{i}_" if i.low > 0 else str(i) for i in cells)
        rows.append((f"`{name}`", *(f"{i}; {b}/{len(models)}" for i, b in zip(marked, better, strict=True))))
    return table(("criterion", *COUNTS), rows)
