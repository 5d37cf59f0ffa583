"""docs/measure.md's line for llama.cpp's own llama-perplexity, beside the losses that `measure` computes."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from math import exp, log
from pathlib import Path

import numpy as np
import pytest

from gatenorm_stream.families.open import open_model
from gatenorm_stream.measuring.forward import losses_of
from gatenorm_stream.measuring.open import open_decoder
from gatenorm_stream.measuring.tokens import encode
from gatenorm_stream.sources.open import open_source
from tests.conftest import COMMAND
from tests.deploy.recipes import Block, blocks

PROGRAMS = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
HELDOUT = Path(__file__).parents[2] / "fixtures" / "heldout.txt"
CONTEXT = 256  # as the line says
WINDOWS, FEWEST = 6, 3
"""Of the text, and of those told: a thread of llama.cpp writes them, and the program may end before it has."""

pytestmark = [
    pytest.mark.engines,
    pytest.mark.skipif(
        not shutil.which("llama-perplexity", path=PROGRAMS),
        reason="no llama-perplexity: tests/deploy/llama_cpp_from_debian.sh fetches it where apt knows Debian",
    ),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, sotu, gguf) -> Path:
    """model.gguf, and what the command makes of it, plain and with constants; heldout.txt of six windows or so."""
    folder = tmp_path_factory.mktemp("perplexity")
    shutil.copy(gguf(sotu, "f16"), folder / "converted.gguf")
    prune(folder, "converted.gguf", "model.gguf", "--format", "zeroed", "--layers", "11")  # mends the merge order
    for name, *options in (("pruned", "--drop", "3"), ("constants", "--drop", "3", "--compensate")):
        prune(folder, "converted.gguf", f"{name}.gguf", *options)
    (folder / "heldout.txt").write_text(HELDOUT.read_text("utf-8")[: WINDOWS * CONTEXT * 5], "utf-8")
    return folder


def prune(folder: Path, model: str, out: str, *options: str) -> None:
    subprocess.run([COMMAND, model, "--out", out, "--quiet", *options], cwd=folder, check=True)


def told(folder: Path, name: str) -> list[float]:
    """Of the first 1, 2, ... windows, by the line of the guide."""
    (line,) = blocks("In llama.cpp", "measure.md")
    said = Block(line.language, line.code.replace("pruned.gguf", f"{name}.gguf")).run(folder)
    return [float(number) for number in re.findall(r"\[\d+\]([\d.]+),", said)]


def computed(folder: Path, name: str) -> list[float]:
    """By the same rule: over the second half of each window, which begins with <s>."""
    with open_model(open_source(str(folder / f"{name}.gguf")), pruned=True) as model:
        ids = np.array(encode(model.checkpoint, (folder / "heldout.txt").read_text("utf-8")), np.int64)
        windows = ids[: len(ids) // CONTEXT * CONTEXT].reshape(-1, CONTEXT).copy()
        windows[:, 0] = ids[0]
        with open_decoder(model) as decoder:
            halves = [losses_of(decoder, window)[CONTEXT // 2 :] for window in windows]
    return [exp(np.concatenate(halves[: n + 1]).mean()) for n in range(len(halves))]


def test_it_says_what_measure_computes(folder):
    unpruned, rises = told(folder, "model"), {}
    for name in ("pruned", "constants"):
        said = told(folder, name)
        assert len(said) >= FEWEST
        assert said == pytest.approx(computed(folder, name)[: len(said)], rel=2e-3)
        both = min(len(said), len(unpruned)) - 1
        rises[name] = log(said[both] / unpruned[both])
    assert rises["pruned"] > 0.05
    assert abs(rises["pruned"] - rises["constants"]) > 0.01
