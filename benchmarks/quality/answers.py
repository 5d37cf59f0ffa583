"""Block D's questions answered from its stored results, by the rules of PROTOCOL.md."""

import json
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.quality.intervals import Interval, t_interval
from benchmarks.quality.tables import spearman

RESULTS = Path(__file__).parents[1] / "results/constants"
DEFAULT, PRIMARY = "per-head", "L/5"
COUNTS = ("L/12", "L/8", "L/6", "L/5", "L/4", "L/3")
PLAIN, MEANS = "none", "means"
HARM, LIMIT, QUORUM = 0.02, 0.35, 0.75
"""Nats a token, nats a token, share of the decoders."""
MANY, FEW = 18, 2
"""Of 20 draws."""


@dataclass(frozen=True)
class Judged:
    """A model with what block D stored of it."""

    name: str
    told: dict

    def rises(self, criterion: str, count: str, constants: str, measure: str = "loss") -> list[float]:
        """One for each choice; several only of random ones."""
        base = self.told["unpruned"][measure]
        wanted = (criterion, count, constants)
        return [
            c[measure] - base
            for c in self.told["choices"]
            if (c["criterion"], c["count"], c["constants"]) == wanted
        ]

    def rise(self, criterion: str, count: str, constants: str, measure: str = "loss") -> float:
        return statistics.mean(self.rises(criterion, count, constants, measure))

    def gain(self) -> float:
        """What constants change of the default's rise; negative is better."""
        return self.rise(DEFAULT, PRIMARY, MEANS) - self.rise(DEFAULT, PRIMARY, PLAIN)

    def beaten(self, draws: str, constants: str) -> int:
        """How many random draws have a higher rise than the default."""
        own = self.rise(DEFAULT, PRIMARY, constants)
        return sum(value > own for value in self.rises(draws, PRIMARY, constants))

    def theory(self) -> float:
        """Correlation of the score with the share of the output that is not constant, from layer 1 on."""
        return spearman(self.told["scores"][DEFAULT][1:], self.told["varying"][1:])


def read(folder: Path = RESULTS) -> tuple[Judged, list[Judged]]:
    """The public model, and the decoders."""
    public = Judged("SmolLM2-135M", json.loads((folder / "smollm2.json").read_text()))
    files = sorted(folder.glob("decoder-*.json"))
    told = [json.loads(file.read_text()) for file in files]
    return public, [Judged(f"{t['kind']}:{t['seed']}", t) for t in told]


def change(models: Sequence[Judged], criterion: str, count: str) -> Interval:
    """What constants change of a criterion's rise."""
    return t_interval([m.rise(criterion, count, MEANS) - m.rise(criterion, count, PLAIN) for m in models])


def difference(models: Sequence[Judged], one: tuple[str, str], other: tuple[str, str]) -> Interval:
    """Of two (criterion, constants), at the primary count."""
    return t_interval([m.rise(one[0], PRIMARY, one[1]) - m.rise(other[0], PRIMARY, other[1]) for m in models])


def told_apart(interval: Interval) -> str:
    return "better" if interval.high < 0 else "worse" if interval.low > 0 else "not told apart"


def by_draws(beaten: int) -> str:
    return "better" if beaten >= MANY else "worse" if beaten <= FEW else "not told apart"


def interval_json(interval: Interval) -> dict[str, float]:
    return {"mean": interval.mean, "low": interval.low, "high": interval.high, "n": interval.n}


def compensation(public: Judged, decoders: Sequence[Judged]) -> dict[str, object]:
    gains = {m.name: m.gain() for m in decoders}
    lower = sum(gain < 0 for gain in gains.values())
    yes = public.gain() < 0 and lower >= QUORUM * len(decoders) and max([public.gain(), *gains.values()]) <= HARM
    return {
        "is_default": yes,
        "smollm2": {name: public.rise(DEFAULT, PRIMARY, how) for name, how in (("plain", PLAIN), ("means", MEANS))},
        "decoders": gains,
        "lower_on": lower,
        "of": len(decoders),
        "mean": interval_json(t_interval(list(gains.values()))),
    }


def against_random(public: Judged, decoders: Sequence[Judged], constants: str) -> dict[str, object]:
    found: dict[str, object] = {}
    for draws in ("random 1", "random 2"):
        interval = difference(decoders, (DEFAULT, constants), (draws, constants))
        values = public.rises(draws, PRIMARY, constants)
        found[draws] = {
            "decoders": interval_json(interval),
            "decoders_say": told_apart(interval),
            "smollm2_beats": public.beaten(draws, constants),
            "smollm2_says": by_draws(public.beaten(draws, constants)),
            "smollm2_draws": {"mean": statistics.mean(values), "low": min(values), "high": max(values)},
        }
    first = found["random 1"]
    found["better"] = first["decoders_say"] == first["smollm2_says"] == "better"
    return found


def influence(public: Judged, decoders: Sequence[Judged]) -> dict[str, object]:
    return {
        "smollm2": {
            name: public.rise(name, PRIMARY, MEANS) - public.rise(DEFAULT, PRIMARY, MEANS)
            for name in ("influence 128", "influence", "influence 2048", "influence random")
        },
        "decoders": interval_json(difference(decoders, ("influence", MEANS), (DEFAULT, MEANS))),
        "decoders_128": interval_json(difference(decoders, ("influence 128", MEANS), (DEFAULT, MEANS))),
        "lower_on": sum(m.rise("influence", PRIMARY, MEANS) < m.rise(DEFAULT, PRIMARY, MEANS) for m in decoders),
    }


def number(public: Judged, constants: str) -> dict[str, object]:
    rises = {count: public.rise(DEFAULT, count, constants) for count in ("L/12", "L/8", "L/5")}
    within = [count for count, rise in rises.items() if rise < LIMIT]
    return {"rises": rises, "default": within[-1] if within else "L/12", "met": bool(within)}


def theory(public: Judged, decoders: Iterable[Judged]) -> dict[str, float]:
    return {m.name: m.theory() for m in (public, *decoders)}


def answers(public: Judged, decoders: Sequence[Judged]) -> dict[str, object]:
    first = compensation(public, decoders)
    return {
        "a": first,
        "b": {"means": against_random(public, decoders, MEANS), "plain": against_random(public, decoders, PLAIN)},
        "c": influence(public, decoders),
        "d": number(public, MEANS if first["is_default"] else PLAIN),
        "theory": theory(public, decoders),
        "constants_change": {
            criterion: {count: interval_json(change(decoders, criterion, count)) for count in (PRIMARY, "L/3")}
            for criterion in (DEFAULT, "influence")
        },
        "plain_against_random": {
            criterion: interval_json(difference(decoders, (criterion, PLAIN), ("random 1", PLAIN)))
            for criterion in (DEFAULT, "influence")
        },
    }


if __name__ == "__main__":
    text = json.dumps(answers(*read()), indent=1)
    (RESULTS / "answers.json").write_text(text + "\n")
    print(text)
