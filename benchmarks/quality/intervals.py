"""Means with their intervals."""

import math
import random
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

BOOTSTRAP = 10_000
T_95 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131)
T_95 += (2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045)


@dataclass(frozen=True)
class Interval:
    mean: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.mean:+.3f} [{self.low:+.3f}, {self.high:+.3f}]"


def t_interval(values: Sequence[float]) -> Interval:
    """Mean with the 95 % interval of Student's t; infinite for a single value."""
    n, mean = len(values), statistics.mean(values)
    if n == 1:
        return Interval(mean, -math.inf, math.inf, 1)
    half = T_95[min(n - 2, len(T_95) - 1)] * statistics.stdev(values) / math.sqrt(n)
    return Interval(mean, mean - half, mean + half, n)


def cluster_interval(groups: Iterable[Sequence[float]]) -> Interval:
    """95 % interval of a bootstrap that draws groups and then values within them."""
    lists = [list(group) for group in groups]
    generator = random.Random(0)
    means = []
    for _ in range(BOOTSTRAP):
        drawn = [generator.choices(group, k=len(group)) for group in generator.choices(lists, k=len(lists))]
        means.append(statistics.mean(value for group in drawn for value in group))
    means.sort()
    values = [value for group in lists for value in group]
    low, high = means[int(0.025 * BOOTSTRAP)], means[int(0.975 * BOOTSTRAP) - 1]
    return Interval(statistics.mean(values), low, high, len(values))
