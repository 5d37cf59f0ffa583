"""A plan for each number of sublayers to drop; the model is scored once.  python examples/sweep.py MODEL FOLDER

Carry one out with:  gatenorm-stream MODEL --out DIR --plan FOLDER/drop-3.json
"""

import json
import sys
from pathlib import Path

import gatenorm_stream


def sweep(model: str, folder: Path) -> None:
    scores = gatenorm_stream.score(model)
    folder.mkdir(exist_ok=True)
    for drop in range(1, len(scores) - 1):  # one stays, and layer 0
        plan = gatenorm_stream.plan(model, scores=scores, drop=drop)
        (folder / f"drop-{drop}.json").write_text(json.dumps(plan.to_json(), indent=1), encoding="utf-8")
        print(f"{drop:3}  {plan.format:12}  {', '.join(map(str, plan.dropped))}")


if len(sys.argv) != 3:
    sys.exit(__doc__)
sweep(sys.argv[1], Path(sys.argv[2]))
