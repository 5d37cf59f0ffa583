"""Fuzzes the readers, whole prunes and the command: hostile files, directories, cards, outputs, arguments and Hubs.

    python -m tests.fuzz.run [--seconds 600] [--cases 1000000] [--seed 0] [--only headers]

Ends with the first finding, which is saved and shown with how to repeat it, or after so many cases or seconds.
"""

from __future__ import annotations

import argparse
import os
import pickle
import random
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from itertools import accumulate, pairwise
from pathlib import Path

for _name in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import hypothesis  # noqa: E402
from hypothesis.strategies import SearchStrategy  # noqa: E402

from tests.fuzz.target import Target  # noqa: E402
from tests.fuzz.targets import Fuzzing, open_files  # noqa: E402
from tests.fuzz.watch import FindingError, Watch, peak_rss  # noqa: E402

STRUCTURED = 0.05
"""The share of Hypothesis' cases, which are slow to make, where a target has them."""
ROUND = 2000
MEMORY = Path("/dev/shm")
SAVED = Path("fuzz-finding.bin")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--cases", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", help="one target's name")
    parser.add_argument("--repeat", type=Path, help="a saved finding, for the target --only")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="gatenorm-fuzz-", dir=MEMORY if MEMORY.is_dir() else None) as folder:
        fuzzing = Fuzzing(Path(folder), Watch(), args.seed)
        targets = [t for t in fuzzing.targets() if args.only in (None, t.name)]
        if args.repeat:
            targets[0].check(args.repeat.read_bytes())
            return 0
        return _fuzz(fuzzing, targets, args)


def _fuzz(fuzzing: Fuzzing, targets: list[Target], args: argparse.Namespace) -> int:
    begun = time.monotonic()
    done, spent = ({t.name: 0 for t in targets}, {t.name: 0.0 for t in targets})
    open_before = open_files()
    rng = random.Random(args.seed)
    while sum(done.values()) < args.cases and time.monotonic() - begun < args.seconds:
        this_round = _shared(min(ROUND, args.cases - sum(done.values())), targets)
        for target, count in zip(targets, this_round, strict=True):
            start = time.monotonic()
            for name, data in _cases(target, count, rng):
                try:
                    target.check(data)
                except FindingError as finding:
                    _show(fuzzing, done, spent, args.seed)
                    return report(target, name, data, finding, args.seed)
                done[target.name] += 1
            spent[target.name] += time.monotonic() - start
            fuzzing.watch.check_memory()
        if open_files() > open_before:
            print(f"FINDING: {open_files() - open_before} files were left open")
            return 1
    _show(fuzzing, done, spent, args.seed)
    return 0


def _show(fuzzing: Fuzzing, done: dict[str, int], spent: dict[str, float], seed: int) -> None:
    for name, count in done.items():
        print(f"{name:<24}{count:>10} cases{count / max(spent[name], 1e-9):>9.0f} a second")
    total, seconds = sum(done.values()), sum(spent.values())
    rate = total / max(seconds, 1e-9)
    print(f"{'all':<24}{total:>10} cases{rate:>9.0f} a second, seed {seed}, {seconds:.0f} s")
    slowest, peak = fuzzing.watch.slowest, peak_rss() >> 20
    print(f"taken: {fuzzing.accepted}; slowest case {slowest:.2f} s; peak memory {peak} MiB")
    for reason, count in sorted(fuzzing.stricter.items()):
        print(f"refused here and taken by the safetensors package: {count} ({reason})", flush=True)


def _shared(cases: int, targets: list[Target]) -> list[int]:
    """How many of the cases each target gets, in proportion to its share."""
    whole = sum(t.share for t in targets)
    ends = [round(cases * end / whole) for end in accumulate((t.share for t in targets), initial=0)]
    return [end - begin for begin, end in pairwise(ends)]


def _cases(target: Target, count: int, rng: random.Random) -> Iterator[tuple[str, bytes]]:
    structured = round(count * STRUCTURED) if target.strategy is not None else 0
    if target.strategy is not None and structured:
        yield from (("structured", data) for data in _drawn(target.strategy, structured, rng.randrange(2**32)))
    for _ in range(count - structured):
        yield "mutated", target.mutants(rng)


def _drawn(strategy: SearchStrategy[bytes], count: int, seed: int) -> list[bytes]:
    """Cases that Hypothesis draws, in a child: it keeps some memory of each, which would be taken for ours."""
    receiving, sending = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            with open(sending, "wb") as pipe:
                pickle.dump(_draw(strategy, count, seed), pipe)
            code = 0
        finally:
            os._exit(code)
    os.close(sending)
    with open(receiving, "rb") as pipe:
        content = pipe.read()
    if os.waitpid(child, 0)[1]:
        raise RuntimeError("no cases could be drawn")
    drawn: list[bytes] = pickle.loads(content)
    return drawn


def _draw(strategy: SearchStrategy[bytes], count: int, seed: int) -> list[bytes]:
    drawn: list[bytes] = []

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=count,
        database=None,
        deadline=None,
        phases=[hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(strategy)
    def draw(data: bytes) -> None:
        drawn.append(data)

    draw()
    return drawn


def report(target: Target, name: str, data: bytes, finding: FindingError, seed: int) -> int:
    SAVED.write_bytes(data)
    traceback.print_exception(finding.__cause__ or finding)
    print(f"FINDING in {target.name} ({name}, {len(data)} bytes): {finding}")
    print(f"{data[:300]!r}{'...' if len(data) > 300 else ''}")
    print(f"again: python -m tests.fuzz.run --only '{target.name}' --seed {seed} --repeat {SAVED}")
    return 1


if __name__ == "__main__":
    sys.exit(main())
