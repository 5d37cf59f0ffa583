"""The runs that pieces stored, as the report reads them."""

import json
import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

DEFAULT, PRIMARY = "per-head", "L/5"
COUNTS = ("L/12", "L/6", "L/5", "L/4", "L/3", "L/2")


@dataclass(frozen=True)
class Model:
    run: str
    kind: str
    seed: int
    told: dict

    @property
    def final(self) -> dict:
        return self.told["final"]

    def values(self, criterion: str, count: str, measure: str = "loss") -> list[float]:
        """Change against the unpruned model, one value for each choice."""
        base = self.final["unpruned"][measure]
        return [
            c[measure] - base for c in self.final["choices"] if c["criterion"] == criterion and c["count"] == count
        ]

    def value(self, criterion: str, count: str, measure: str = "loss") -> float:
        return statistics.mean(self.values(criterion, count, measure))

    def against_random(self, criterion: str, count: str) -> float:
        return self.value(criterion, count) - self.value("random", count)

    def criteria(self) -> list[str]:
        return list(dict.fromkeys(c["criterion"] for c in self.final["choices"]))


def pieces(folder: Path) -> list[dict]:
    return [json.loads(path.read_text()) for path in sorted(folder.glob("piece-*.json"))]


def done(found: Iterable[dict]) -> list[Model]:
    runs = [run for piece in found for run in piece["runs"]]
    models = {
        (r["kind"], r["seed"]): Model(r["run"], r["kind"], r["seed"], r) for r in runs if r["status"] == "done"
    }
    return list(models.values())


def by_kind(models: Iterable[Model]) -> dict[str, list[Model]]:
    groups = defaultdict(list)
    for model in models:
        groups[model.kind].append(model)
    return dict(groups)


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(map(str, row)) + " |" for row in rows])
