"""The pictures of docs/evidence.md."""

from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np

from benchmarks.quality.runs import COUNTS, DEFAULT, Model

mpl.use("Agg")
mpl.rcParams |= {"svg.hashsalt": "gatenorm", "svg.fonttype": "none", "font.size": 9, "axes.grid": True}
mpl.rcParams |= {"grid.alpha": 0.3, "axes.spines.top": False, "axes.spines.right": False}

PICTURES = Path(__file__).parents[2] / "docs/evidence"
COLOURS = {"per-head": "C3", "joint": "C1", "stored": "C4", "cosine": "C0", "greedy": "C2", "last": "C5"}
COLUMNS = 2
GIT = {"metadata": {"Date": None}}  # so that the same data gives the same bytes


def save(figure: plt.Figure, name: str) -> str:
    PICTURES.mkdir(parents=True, exist_ok=True)
    figure.tight_layout()
    figure.savefig(PICTURES / f"{name}.svg", bbox_inches="tight", **GIT)
    plt.close(figure)
    return f"evidence/{name}.svg"


def panels(groups: dict[str, list[Model]], height: float = 2.7) -> tuple[plt.Figure, list[plt.Axes]]:
    """Two columns, which a page is wide enough for."""
    lines = -(-len(groups) // COLUMNS)
    figure, axes = plt.subplots(lines, COLUMNS, figsize=(3.6 * COLUMNS, height * lines), squeeze=False)
    drawn = list(axes.flat)
    for axis in drawn[len(groups) :]:
        axis.set_axis_off()
    for axis, name in zip(drawn, groups, strict=False):
        axis.set_title(name)
    return figure, drawn[: len(groups)]


def _legend_below(figure: plt.Figure, axis: plt.Axes) -> None:
    """Where it hides no line: one for all panels, which draw the same."""
    handles, labels = axis.get_legend_handles_labels()
    figure.legend(handles, labels, fontsize=8, ncol=4, loc="upper center", bbox_to_anchor=(0.5, 0))


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
    for axis in axes[::COLUMNS]:
        axis.set_ylabel("loss rise, nats per token")
    _legend_below(figure, axes[0])
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
    for axis in axes[::COLUMNS]:
        axis.set_ylabel(f"{DEFAULT} score / mean of layers")
    axes[-1].legend(fontsize=7)
    return save(figure, "depth")


def scatter_picture(groups: dict[str, list[Model]]) -> str:
    """Without the ratio of norms, which tells the same as the cosine (the table has both)."""
    figure, axes = plt.subplots(len(groups), COLUMNS, figsize=(3.6 * COLUMNS, 2.4 * len(groups)), squeeze=False)
    columns: tuple[tuple[str, Callable[[Model], list[float]]], ...] = (
        ("1 - cos(x, x + a)", lambda m: m.final["scores"]["cosine"]),
        ("loss rise without it", lambda m: m.final["single_rise"]),
    )
    for row, (name, models) in enumerate(groups.items()):
        axes[row][0].set_ylabel(name)
        for column, (label, values) in enumerate(columns):
            axis = axes[row][column]
            for n, model in enumerate(models):
                scores, y = model.final["scores"][DEFAULT], np.maximum(values(model), 1e-4)
                axis.scatter(scores[1:], y[1:], s=9, color=f"C{n}", label=f"seed {model.seed}")
            axis.set_yscale("log")
            axis.set_title(label if row == 0 else "")
            axis.set_xlabel(f"{DEFAULT} score" if row == len(groups) - 1 else "")
    _legend_below(figure, axes[0][0])
    return save(figure, "suppression")
