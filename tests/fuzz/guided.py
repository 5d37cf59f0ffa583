"""Fuzzes the readers guided by coverage (atheris): what reaches new branches is kept and mutated on.

    python -m tests.fuzz.guided [--seconds 120] [--seed 0] [--only headers]

Every target starts from SEEDS cases of the unguided fuzzer, so that what coverage gains is what guidance adds to
them. Ends with the first finding, saved as run.py saves it. --seconds are for each target.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import atheris

ROOT = Path(__file__).parents[2]
GUIDED = ("headers", "indexes", "configs", "plans", "gguf headers", "gguf files")
SEEDS = 2000
MOST_BYTES = 20_000
_BEGUN = re.compile(r"INITED\s+cov: (\d+)")
_NOW = re.compile(r"^#(\d+)\s+\w+\s+cov: (\d+)", re.MULTILINE)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=120)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=GUIDED)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.folder:
        return _fuzz(args)
    for name in GUIDED if args.only is None else (args.only,):
        with tempfile.TemporaryDirectory(prefix="gatenorm-fuzz-") as folder:
            options = ["--seconds", str(args.seconds), "--seed", str(args.seed), "--only", name, "--folder", folder]
            command = [sys.executable, "-m", "tests.fuzz.guided", *options]
            done = subprocess.run(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
        begun, now = _BEGUN.search(done.stderr), _NOW.findall(done.stderr)
        if done.returncode or not begun:
            print(done.stderr[-3000:], f"exit code {done.returncode}")
            return 1
        print(f"{name:<14}{now[-1][0]:>9} cases, branches reached {begun[1]} -> {now[-1][1]}", flush=True)
    return 0


def _fuzz(args: argparse.Namespace) -> int:
    """One target, in a process of its own, which libFuzzer ends."""
    with atheris.instrument_imports(include=["gatenorm_stream"]):
        from tests.fuzz.run import report
        from tests.fuzz.targets import Fuzzing
        from tests.fuzz.watch import FindingError, Watch

    fuzzing = Fuzzing(args.folder, Watch(), args.seed)
    target = next(t for t in fuzzing.targets() if t.name == args.only)
    corpus = args.folder / "corpus"
    corpus.mkdir()
    rng = random.Random(args.seed)
    for n in range(SEEDS):
        (corpus / str(n)).write_bytes(_seed(target.name, target.mutants(rng)))

    def one(data: bytes) -> None:
        case = _case(target.name, data)
        try:
            target.check(case)
            fuzzing.watch.check_memory()
        except FindingError as finding:
            report(target, "guided", case, finding, args.seed)
            os._exit(77)

    limits = [f"-max_total_time={args.seconds}", f"-seed={args.seed + 1}", f"-max_len={MOST_BYTES}"]
    atheris.Setup([sys.argv[0], *limits, "-timeout=0", "-rss_limit_mb=0", str(corpus)], one)
    atheris.Fuzz()
    return 0


def _seed(target: str, case: bytes) -> bytes:
    """Of a file with a header, its length is left out and the size of what follows comes first, in two bytes:
    mutation would spoil both."""
    if target != "headers":
        return case
    stop = min(len(case), 8 + int.from_bytes(case[:8], "little"))
    return min(len(case) - stop, 0xFFFF).to_bytes(2, "little") + case[8:stop]


def _case(target: str, data: bytes) -> bytes:
    if target != "headers":
        return data
    text, size = data[2:], int.from_bytes(data[:2], "little")
    return len(text).to_bytes(8, "little") + text + bytes(size)


if __name__ == "__main__":
    sys.exit(main())
