"""docs/measure.md's line for lm-evaluation-harness, on examples/lm_eval, beside the stock model."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.engines import stock

pytestmark = pytest.mark.engines
ROOT = Path(__file__).parents[2]
TASKS = ROOT / "examples" / "lm_eval"
GUIDE = (ROOT / "docs" / "measure.md").read_text("utf-8")
LAYERS = (1, 6, 11)
TOLERANCE = 1e-3


def command() -> str:
    (shown,) = re.findall(r"```sh\n(lm_eval .*?)\n```", GUIDE, re.DOTALL)
    return shown


def rows(name: str) -> list[dict]:
    return [json.loads(line) for line in (TASKS / f"{name}.jsonl").read_text("utf-8").splitlines()]


def evaluate(line: str, folder: Path) -> dict[str, list[dict]]:
    """What the harness writes of every row, by the task."""
    programs = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    variables = {**os.environ, "PATH": programs, "HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": str(folder / "cache")}
    done = subprocess.run(
        ["sh", "-c", f"{line} --output_path told --log_samples"],
        cwd=folder,
        env=variables,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    told = {}
    for file in (folder / "told").rglob("samples_*.jsonl"):
        samples = [json.loads(sample) for sample in file.read_text("utf-8").splitlines()]
        told[file.name.removeprefix("samples_").rpartition("_")[0]] = sorted(samples, key=lambda s: s["doc_id"])
    return told


@pytest.mark.parametrize("form", ["no-op", "zeroed"])
def test_the_harness_says_what_the_stock_model_says(form, sotu, prune, reference, tokenizer, tmp_path):
    """Of every choice and every text, the log-probability is that of the stock model without that attention."""
    line = command()
    if form == "zeroed":
        line = line.replace(",trust_remote_code=True", "")  # as the guide says
    shutil.copytree(TASKS, tmp_path, dirs_exist_ok=True)
    (tmp_path / "DIR").symlink_to(prune(sotu, LAYERS, "--format", form))
    told = evaluate(line, tmp_path)

    def nats(ids: list[int], start: int, of: tuple[int, ...] = LAYERS) -> float:
        """The log-probability of the tokens from `start` on, without the attention of these layers."""
        chances = stock.log_probabilities(stock.logits(reference(sotu, of), ids))
        return float(sum(chances[at - 1, ids[at]] for at in range(start, len(ids))))

    def ids(text: str) -> list[int]:
        return tokenizer(text).input_ids

    right = []
    for row, sample in zip(rows("own_choices"), told["own_choices"], strict=True):
        start = len(ids(row["beginning"]))
        expected = [nats(ids(f"{row['beginning']} {choice}"), start) for choice in row["choices"]]
        assert [float(chance) for chance, _ in sample["filtered_resps"]] == pytest.approx(expected, abs=TOLERANCE)
        assert sample["acc"] == (np.argmax(expected) == row["answer"])
        right.append(sample["acc"])
    assert 0.5 < np.mean(right) < 1
    for row, sample in zip(rows("own_text"), told["own_text"], strict=True):
        (found,) = sample["filtered_resps"]
        judged = [tokenizer.bos_token_id, *ids(row["text"])]  # the harness puts one more before a running text
        assert float(found) == pytest.approx(nats(judged, 1), rel=TOLERANCE)
        assert abs(float(found) - nats(judged, 1, of=())) > 1


def test_the_guide_shows_these_tasks():
    (shown,) = re.findall(r"```yaml\n(.*?)```", GUIDE, re.DOTALL)
    assert shown == (TASKS / "own_choices.yaml").read_text("utf-8")
    (row,) = re.findall(r"```json\n(.*?)```", GUIDE, re.DOTALL)
    assert json.loads(row) == rows("own_choices")[0]
