"""`measure`, as a user uses it: what is shown, what is JSON, what is drawn, and what can't be measured."""

from __future__ import annotations

import json
import re
import shutil
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import gatenorm_stream
from gatenorm_stream.measuring import study
from gatenorm_stream.measuring.study import SHORT, counts, random_counts
from gatenorm_stream.scoring.selection import default_number
from tests.checkpoints import HIDDEN, llama_config, random_tensors, shapes_of, write_checkpoint
from tests.conftest import FIXTURE, Run, golden

FEW = ["--tokens", "16", "--random", "2"]


def form(text: str) -> str:
    """Without its digits, which are BLAS's, but with the width of every column."""
    text = re.sub(r"perplexity \S+?,", "perplexity 9,", text)
    text = re.sub(r"weights, \d+ s", "weights, 9 s", text)
    return re.sub(r"[+-]?\d[\d.]*", lambda number: "9" * len(number[0]), text)


@pytest.mark.parametrize("columns", [40, 60, 80])
def test_the_tables(run: Run, tmp_path: Path, columns: int) -> None:
    (tmp_path / "model").symlink_to(FIXTURE)
    done = run("measure", "model", *FEW, COLUMNS=str(columns))
    assert (done.returncode, done.stderr) == (0, "")
    golden(f"measure-{columns}.txt", form(done.stdout))
    assert max(map(len, done.stdout.splitlines())) <= columns


def test_json(run: Run) -> None:
    said = json.loads(run("measure", FIXTURE, *FEW, "--json", "--quiet").stdout)
    assert said.keys() >= {"tokens", "loss", "layers", "choices"}
    assert said["tokens"] == 16
    assert [m["layer"] for m in said["layers"]] == list(range(12))
    assert all(m.keys() == {"layer", "score", "influence", "constant"} for m in said["layers"])
    assert all(0 <= m["influence"] <= 2 and 0 <= m["constant"] <= 1 for m in said["layers"])
    scores = json.loads(run("score", FIXTURE, "--json").stdout)["layers"]
    assert [m["score"] for m in said["layers"]] == [s["score"] for s in scores]
    asked = {(c["by"], len(c["dropped"]), c["compensated"]) for c in said["choices"]}
    chosen = {(by, n, c) for by in ("gate-norm", "influence") for n in (1, 2, 3, 4) for c in (False, True)}
    at_random = {("random", n, c) for n in (1, 2, 3, 4) for c in (False, True)}
    assert asked == chosen | at_random
    assert len(said["choices"]) == len(chosen) + 2 * len(at_random)
    assert not any(0 in c["dropped"] for c in said["choices"])
    for choice in said["choices"]:
        assert choice.keys() >= {"by", "dropped", "compensated", "loss", "rise"}
        assert choice["rise"] == pytest.approx(choice["loss"] - said["loss"], abs=1e-9)
        if choice["by"] != "random":
            key = "score" if choice["by"] == "gate-norm" else "influence"
            free = sorted(said["layers"][1:], key=lambda m: m[key])
            assert choice["dropped"] == sorted(m["layer"] for m in free[: len(choice["dropped"])])


@pytest.mark.parametrize("kind", ["svg", "html", "png"])
def test_a_picture(run: Run, tmp_path: Path, kind: str) -> None:
    done = run("measure", FIXTURE, *FEW, "--quiet", "--plot", f"losses.{kind}")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    drawn = (tmp_path / f"losses.{kind}").read_bytes()
    assert drawn.startswith({"svg": b"<svg", "html": b"<!doctype html", "png": b"\x89PNG"}[kind])
    if kind == "svg":
        names = re.findall(r">((?:Gate-Norm|influence|at random), (?:plain|constants))<", drawn.decode())
        assert len(names) == 6


def test_pictures_are_of_known_kinds(run: Run) -> None:
    done = run("measure", FIXTURE, *FEW, "--plot", "losses.jpg")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1


TEXTS = {
    "empty": (b" \n\n", "text.txt is empty; give a file of plain text"),
    "binary": (b"abc\0def", "text.txt is not plain text: byte 3 is zero"),
    "latin": (b"na\xefve " * 50, "text.txt is not in UTF-8: byte 2 (0xef)"),
    "short": (b"A few words, no more.", "tokens in one of its halves, and 16 are asked for"),
}


@pytest.mark.parametrize(("content", "says"), TEXTS.values(), ids=TEXTS.keys())
@pytest.mark.parametrize("words", [["measure"], ["--dry-run", "--compensate"]], ids=["measure", "prune"])
def test_a_text_that_is_none(run: Run, tmp_path: Path, words: list[str], content: bytes, says: str) -> None:
    (tmp_path / "text.txt").write_bytes(content)
    model = ["measure", FIXTURE] if words == ["measure"] else [FIXTURE, *words]
    done = run(*model, "--text", "text.txt", "--tokens", "16")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1
    assert says in done.stderr


def test_more_tokens_than_the_text_has(run: Run, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("These few words are all that there is to measure it on.\n" * 9)
    done = run("measure", FIXTURE, "--text", "text.txt", "--tokens", "1000")
    assert done.returncode == 1
    assert re.search(r"take --tokens \d{2,3} or fewer, or a longer text\n$", done.stderr)
    few = run("measure", FIXTURE, "--tokens", "15")
    assert (few.returncode, "--tokens takes at least 16" in few.stderr) == (2, True)


@pytest.mark.parametrize("words", [["measure"], ["--dry-run", "--by", "influence"], ["score", "--by", "influence"]])
def test_more_tokens_than_the_model_reads(run: Run, words: list[str]) -> None:
    given_ = [FIXTURE, *words] if words[0].startswith("-") else [words[0], FIXTURE, *words[1:]]
    done = run(*given_, "--tokens", "1025")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.endswith(
        "reads at most 1024 tokens at once, and 1025 are asked for; take --tokens 1024 or fewer\n"
    )


@pytest.mark.slow
def test_by_one_criterion_alone(run: Run) -> None:
    """The same numbers, and the other's columns are left out."""
    both = json.loads(run("measure", FIXTURE, *FEW, "--json").stdout)["choices"]
    for by in ("gate-norm", "influence"):
        said = json.loads(run("measure", FIXTURE, *FEW, "--by", by, "--json").stdout)
        expected = [c for c in both if c["by"] in (by, "random")]
        assert sorted((c["by"], c["dropped"], c["compensated"]) for c in said["choices"]) == sorted(
            (c["by"], c["dropped"], c["compensated"]) for c in expected
        )
        for choice in said["choices"]:
            like = next(c for c in expected if all(c[k] == choice[k] for k in ("by", "dropped", "compensated")))
            assert choice["loss"] == pytest.approx(like["loss"], abs=1e-5)
    shown = run("measure", FIXTURE, *FEW, "--by", "influence").stdout
    assert "by influence" in shown
    assert "by Gate-Norm" not in shown


def test_a_model_without_a_tokenizer(run: Run, tmp_path: Path) -> None:
    tensors = random_tensors(shapes_of(llama_config()))
    model = write_checkpoint(tmp_path / "m", tensors, llama_config(), tokenizer=False)
    done = run("measure", model, *FEW)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "tokenizer.json" in done.stderr


@pytest.mark.parametrize("words", [["measure"], ["--dry-run", "--by", "influence"]], ids=["measure", "prune"])
def test_a_family_that_needs_the_extra(run: Run, tmp_path: Path, words: list[str]) -> None:
    """Told before anything is scored, where torch is not installed."""
    if find_spec("torch"):
        pytest.skip("torch is installed here")
    config = llama_config(hidden_act="gelu", vocab_size=4096)
    not_finite = {"model.layers.0.self_attn.q_proj.weight": np.full((HIDDEN, HIDDEN), np.nan)}
    tensors = random_tensors(shapes_of(config)) | not_finite
    model = write_checkpoint(tmp_path / "m", tensors, config, dtype="F32", tokenizer=False)
    shutil.copy(FIXTURE / "tokenizer.json", model)
    given_ = ["measure", model] if words == ["measure"] else [model, *words]
    done = run(*given_, "--tokens", "16")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "[measure]" in done.stderr


@given(st.integers(1, 200))
def test_counts(layers: int) -> None:
    found = counts(layers)
    third = max(1, layers // 3)
    assert found == tuple(sorted(set(found)))
    assert found[0] == 1
    assert found[-1] == third
    assert default_number(layers) in found
    assert len(found) <= 7
    assert random_counts(layers, SHORT) == found
    assert random_counts(layers, SHORT + 1) == (default_number(layers),)


@pytest.mark.parametrize("draws", [None, 1])
def test_random_choices_that_are_asked_for_stand_at_every_number(
    draws: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(study, "SHORT", 0)
    found = gatenorm_stream.measure(FIXTURE, tokens=16, random=draws, by="gate-norm")
    at_random = [len(choice.dropped) for choice in found.choices if choice.by == "random"]
    assert set(at_random) == ({default_number(12)} if draws is None else set(found.counts))
    assert len(at_random) == (2 * 5 if draws is None else 2 * len(found.counts))
