"""Time, CPU time, page faults and scores of two states of the code on the same model, in turns.

git worktree add /tmp/before COMMIT
python -m benchmarks.commits MODEL READING ROUNDS /tmp/before .
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

CODE = """
import json, resource, sys, time
sys.path.insert(0, sys.argv[1])
import gatenorm_stream, numpy, gatenorm_stream.sources.open
before, begun = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
scores = gatenorm_stream.score(sys.argv[2], reading=sys.argv[3], threads=2)
seconds, after = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_SELF)
cpu = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
faults = after.ru_minflt - before.ru_minflt
print(json.dumps([seconds, cpu, faults, after.ru_maxrss // 1024, sum(s.score for s in scores)]))
"""


def main() -> None:
    model, reading, rounds, *places = sys.argv[1:]
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    best: dict[str, list[float]] = {}
    for _ in range(int(rounds)):
        for place in places:
            words = [sys.executable, "-c", CODE, os.path.abspath(place), model, reading]
            done = subprocess.run(words, env=environment, stdout=subprocess.PIPE, text=True, check=True)
            best[place] = min(best.get(place, [float("inf")]), json.loads(done.stdout))
    for place, (seconds, cpu, faults, peak, total) in best.items():
        took = f"{seconds:.2f} s, {cpu:.2f} s of CPU"
        print(f"{place}: {took}, {faults} page faults, peak {peak} MB, sum of the scores {total:.10g}")


if __name__ == "__main__":
    main()
