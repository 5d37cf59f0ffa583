"""The pictures of block D."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np

from benchmarks.quality.answers import COUNTS, DEFAULT, MEANS, PLAIN, Judged
from benchmarks.quality.drawing import COLUMNS, panels, save

LINES = (
    (DEFAULT, PLAIN, "C3", "--", "Gate-Norm, nothing in its place"),
    (DEFAULT, MEANS, "C3", "-", "Gate-Norm, constants"),
    ("influence", PLAIN, "C0", "--", "influence, nothing"),
    ("influence", MEANS, "C0", "-", "influence, constants"),
    ("greedy", MEANS, "C2", "-", "greedy (upper bound), constants"),
)


def count_picture(public: Judged, decoders: Sequence[Judged]) -> str:
    """Loss rise against the number that goes: the public model, and the mean of the decoders."""
    figure, axes = plt.subplots(1, 2, figsize=(8.2, 3.4))
    x = np.arange(len(COUNTS))
    for axis, models, title in ((axes[0], [public], "SmolLM2-135M, 30 layers"), (axes[1], decoders, "8 decoders")):
        draws = np.array([[np.percentile(m.rises("random 1", c, MEANS), (5, 95)) for c in COUNTS] for m in models])
        low, high = draws.mean(0).T
        axis.fill_between(x, low, high, color="0.85", label="random, constants, 5 to 95 %")
        for name, constants, colour, style, label in LINES:
            rises = np.array([[m.rise(name, c, constants) for c in COUNTS] for m in models]).mean(0)
            axis.plot(x, rises, color=colour, linestyle=style, label=label)
        axis.set_yscale("log")
        axis.set_xticks(x, COUNTS)
        axis.set_title(title)
    axes[0].set_ylabel("loss rise, nats a token")
    axes[1].legend(fontsize=7, bbox_to_anchor=(1.02, 1), loc="upper left")
    return save(figure, "constants")


def theory_picture(public: Judged, decoders: Sequence[Judged]) -> str:
    """Score against the share of the output that is not constant, a point a layer from layer 1 on."""
    groups = {"SmolLM2-135M": [public]}
    for model in decoders:
        groups.setdefault(model.told["kind"], []).append(model)
    figure, axes = panels(groups)
    for axis, models in zip(axes, groups.values(), strict=True):
        axis.set_ylim(0, 1)
        for n, model in enumerate(models):
            scores = np.array(model.told["scores"][DEFAULT])
            axis.scatter(scores[1:] / scores[1:].mean(), model.told["varying"][1:], s=9, color=f"C{n}")
        axis.set_xlabel(f"{DEFAULT} score / mean of layers")
    for axis in axes[::COLUMNS]:
        axis.set_ylabel("share that is not constant")
    return save(figure, "theory")
