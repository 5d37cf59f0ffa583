"""Counts and sizes as people read them."""

from __future__ import annotations


def si(count: float, unit: str = "") -> str:
    """Three significant digits with a decimal prefix: si(10_500_000, "B") is "10.5 MB"."""
    for prefix in ("", "k", "M", "G", "T"):
        if abs(count) < 999.5 or prefix == "T":
            break
        count /= 1000
    digits = f"{count:.0f}" if abs(count) >= 99.95 or count == int(count) else f"{count:.3g}"
    return f"{digits} {prefix}{unit}".rstrip()


def layer_list(layers: tuple[int, ...]) -> str:
    """Runs joined, as --layers takes them: (3, 7, 8, 9) is "3,7-9"."""
    return ",".join(layer_runs(layers))


def layer_runs(layers: tuple[int, ...]) -> list[str]:
    """(3, 7, 8, 9) is ["3", "7-9"]."""
    runs: list[list[int]] = []
    for n in layers:
        if runs and n == runs[-1][-1] + 1:
            runs[-1].append(n)
        else:
            runs.append([n])
    return [str(r[0]) if len(r) == 1 else f"{r[0]}-{r[-1]}" for r in runs]
