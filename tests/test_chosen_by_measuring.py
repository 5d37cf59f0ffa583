"""Pruning that runs the model first: by influence, with constants, or as far as the loss may rise."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open

import gatenorm_stream
from gatenorm_stream.errors import GateNormError, VerificationError
from gatenorm_stream.families.open import open_model
from gatenorm_stream.measuring.forward import run as run_pass
from gatenorm_stream.measuring.numpy_decoder import numpy_decoder
from gatenorm_stream.measuring.sample import read_sample
from gatenorm_stream.measuring.text import BUILT_IN
from gatenorm_stream.measuring.variants import Variant
from gatenorm_stream.planning.measured import Measured
from gatenorm_stream.planning.plan import Plan
from gatenorm_stream.report.summary import cautions
from gatenorm_stream.scoring.scores import LayerScore
from gatenorm_stream.scoring.selection import Choice
from gatenorm_stream.sources.open import open_source
from tests.conftest import COMMAND, FIXTURE, Run
from tests.vocabularies import byte_level, write_vocabulary

TOKENS = 16
NEAR = 1e-5
"""Between passes that run other choices beside, in nats a token: BLAS adds in another order."""
FEW = ["--tokens", str(TOKENS)]
NAMING_THE_SOURCE = ("gatenorm.json", "gatenorm.svg", "README.md")


def files(out: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in out.iterdir() if p.name not in NAMING_THE_SOURCE}


def losses(model: Path, choices: list[Variant]) -> tuple[float, list[float]]:
    """The mean loss of the model and of each choice, from a pass of its own."""
    with open_model(open_source(model)) as opened, numpy_decoder(opened) as decoder:
        texts = read_sample(opened, None, TOKENS).texts
        outcome = run_pass(decoder, texts.choosing, texts.judging, choices)
    return float(outcome.losses.mean()), [float(v.losses.mean()) for v in outcome.variants]


@pytest.fixture(scope="module")
def plan() -> Plan:
    return gatenorm_stream.plan(FIXTURE, compensate=True, tokens=TOKENS)


@pytest.fixture(scope="module")
def output(plan: Plan, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("pruned") / "out"
    gatenorm_stream.prune(plan, out)
    return out


@pytest.fixture(scope="module")
def gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tokens, merges = byte_level(600)
    path = tmp_path_factory.mktemp("gguf") / "model.gguf"
    return write_vocabulary(path, tokens, pre="gpt-2", merges=merges, layers=4)


def test_the_same_plan_gives_the_same_bytes(output: Path, tmp_path: Path) -> None:
    shutil.copytree(FIXTURE, tmp_path / "elsewhere")
    read = gatenorm_stream.read_plan(output / "gatenorm.json")
    gatenorm_stream.prune(read, tmp_path / "again", source=tmp_path / "elsewhere")
    assert files(tmp_path / "again") == files(output)
    first, again = (json.loads((out / "gatenorm.json").read_text()) for out in (output, tmp_path / "again"))
    assert again["source"] == str(tmp_path / "elsewhere")
    for record in (first, again):
        for name in ("source", "blake3", "files"):
            del record[name]
    assert first == again


@pytest.mark.slow
def test_a_plan_that_was_printed_is_carried_out(run: Run, plan: Plan, tmp_path: Path) -> None:
    """And it is the plan that Python makes, as far as sums of another number of BLAS threads are the same."""
    done = run(FIXTURE, "--dry-run", "--json", "--compensate", *FEW)
    assert (done.returncode, done.stderr) == (0, "")
    printed, made = json.loads(done.stdout), plan.to_json()
    for key in printed.keys() - {"constants", "measured", "layers"}:
        assert printed[key] == made[key]
    assert printed["measured"]["loss"] == pytest.approx(made["measured"]["loss"], abs=1e-5)
    assert not list(tmp_path.iterdir())
    (tmp_path / "plan.json").write_text(done.stdout)
    again = run(FIXTURE, "--out", "out", "--plan", "plan.json")
    assert again.returncode == 0, again.stderr
    gatenorm_stream.prune(gatenorm_stream.read_plan(tmp_path / "plan.json"), tmp_path / "expected")
    assert files(tmp_path / "out") == files(tmp_path / "expected")


@pytest.mark.slow
def test_a_plan_for_another_model_shows_no_numbers_of_the_first(run: Run, plan: Plan, tmp_path: Path) -> None:
    """Of the same shape, with another matrix; back on the first model, they are its own again."""
    other = shutil.copytree(FIXTURE, tmp_path / "other")
    _flip(other, "model.layers.5.mlp.down_proj.weight", every=2)
    (tmp_path / "plan.json").write_text(json.dumps(plan.to_json()))
    assert plan.measured
    loss = f"{plan.measured.loss:.3f}"
    shown = run(FIXTURE, "--out", "same", "--plan", "plan.json").stdout
    assert loss in shown
    assert "not measured" not in shown
    done = run("other", "--out", "out", "--plan", "plan.json")
    assert done.returncode == 0, done.stderr
    said = " ".join(done.stdout.split())
    assert f"not measured: what the plan was measured on is another model, {FIXTURE}" in said
    assert f"the mean of its output on the text, in {FIXTURE}" in said
    assert "not measured: gatenorm-stream measure out --against other" in said
    card = (tmp_path / "out" / "README.md").read_text()
    assert "Nobody has measured this output." in card
    for text in (done.stdout, card, run("explain", "out").stdout):
        assert loss not in text
    verified = run("verify", "out", "--against", "other")
    assert verified.returncode == 0, verified.stderr
    # the format adds a bias to each of 12 MLPs' three matrices
    assert "36 as the plan says, the others the same as in other" in " ".join(verified.stdout.split())
    back = run(FIXTURE, "--out", "back", "--plan", "out/gatenorm.json")
    assert loss in back.stdout
    assert files(tmp_path / "back") == files(tmp_path / "same")


@pytest.mark.parametrize("format", ["no-op", "transformers"])
def test_a_flipped_bit_of_a_constant_is_found(plan: Plan, tmp_path: Path, format: str) -> None:
    out = tmp_path / "out"
    gatenorm_stream.prune(replace(plan, format=format), out)
    gatenorm_stream.verify(out, against=FIXTURE)
    (layer, *_) = plan.dropped
    name = f"model.layers.{layer}.self_attn.constant"
    if format == "no-op":
        name = f"model.layers.{layer - 1}.mlp.down_proj.bias"
    _flip(out, name)
    with pytest.raises(VerificationError) as caught:
        gatenorm_stream.verify(out, against=FIXTURE)
    assert name in str(caught.value)


def _flip(out: Path, name: str, every: int = 0) -> None:
    """One bit of the tensor's first byte; with `every`, of every so many."""
    for path in out.glob("*.safetensors"):
        with safe_open(path, "numpy") as shard:
            held = set(shard.keys())
        if name not in held:
            continue
        data = bytearray(path.read_bytes())
        size = int.from_bytes(data[:8], "little")
        begin, end = (8 + size + n for n in json.loads(bytes(data[8 : 8 + size]))[name]["data_offsets"])
        for place in range(begin, end, every or end):
            data[place] ^= 1
        path.write_bytes(data)
        return
    raise AssertionError(f"there is no {name}")


def test_gguf(run: Run, gguf: Path, tmp_path: Path) -> None:
    done = run(gguf, "--out", "out.gguf", "--by", "influence", "--compensate", "--drop", "2", *FEW)
    assert done.returncode == 0, done.stderr
    assert "a constant takes its place" in done.stdout
    out = tmp_path / "out.gguf"
    gatenorm_stream.verify(out, against=gguf)
    record = json.loads((tmp_path / "out.gatenorm.json").read_text())
    before, (after,) = losses(gguf, [Variant(tuple(record["dropped"]), compensated=True)])
    assert record["measured"]["loss"] == pytest.approx(before, abs=NEAR)
    assert record["measured"]["pruned"] == pytest.approx(after, abs=NEAR)
    data = bytearray(out.read_bytes())
    constants = gatenorm_stream.read_plan(tmp_path / "out.gatenorm.json").constants
    data[data.index(constants[record["dropped"][0]])] ^= 1
    out.write_bytes(data)
    with pytest.raises(VerificationError, match=r"ffn_down\.bias"):
        gatenorm_stream.verify(out, against=gguf)


def test_by_influence_is_by_what_measure_prints(run: Run) -> None:
    measured = json.loads(run("measure", FIXTURE, *FEW, "--random", "0", "--json").stdout)
    planned = json.loads(run(FIXTURE, "--dry-run", "--by", "influence", "--drop", "4", *FEW, "--json").stdout)
    influence = [m["influence"] for m in measured["layers"]]
    chosen = [m["score"] for m in planned["layers"]]
    assert chosen == planned["measured"]["influence"] == pytest.approx(influence, rel=1e-5)
    least = sorted(range(1, 12), key=lambda layer: influence[layer])[:4]
    assert planned["dropped"] == sorted(least)
    assert planned["by"] == "influence"
    assert "reading" not in planned
    (same,) = (
        c for c in measured["choices"] if (c["by"], c["compensated"], len(c["dropped"])) == ("influence", False, 4)
    )
    assert planned["measured"]["pruned"] == pytest.approx(same["loss"], abs=NEAR)


@pytest.mark.parametrize("compensate", [False, True])
def test_as_many_as_the_rise_allows(run: Run, compensate: bool) -> None:
    """Against the losses of 1 to 6 layers, from a pass of its own; limits stand between two of them."""
    ranked = sorted(gatenorm_stream.score(FIXTURE)[1:], key=lambda s: s.score)
    choices = [tuple(sorted(s.layer for s in ranked[:number])) for number in range(1, 7)]
    before, after = losses(FIXTURE, [Variant(c, compensate) for c in choices])
    rises = [loss - before for loss in after]
    switch = "--compensate" if compensate else "--no-compensate"
    for number in (3, 6):
        limit = max(0.0, *rises[:number]) + 1e-3
        first_above = next((n for n, rise in enumerate(rises) if rise > limit), 6)
        done = run(FIXTURE, "--dry-run", "--max-rise", f"{limit:.9f}", switch, *FEW)
        assert done.returncode == 0, done.stderr
        layers = done.stdout.partition("layers: ")[2].splitlines()[0]
        assert f"removed from {first_above} of 12 layers" in done.stdout, layers
        if first_above < 6:
            assert f"one more would cost {rises[first_above]:+.3f}\n" in done.stdout
        else:
            assert "half of the sublayers is the most that --max-rise takes\n" in done.stdout


LIMITS = {
    "-1": "--max-rise -1 is no limit; give nats a token, 0 or more",
    "nan": "--max-rise nan is no limit",
    "inf": "--max-rise inf is no limit",
}


@pytest.mark.parametrize(("limit", "says"), LIMITS.items())
def test_a_limit_that_is_none(run: Run, limit: str, says: str) -> None:
    done = run(FIXTURE, "--dry-run", f"--max-rise={limit}", *FEW)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1
    assert says in done.stderr


def test_a_limit_that_no_choice_meets(run: Run) -> None:
    """Layer 0 alone is not protected, and on so many tokens the loss rises without it."""
    only = ["--protect-first", "0", "--protect-last", "11", "--tokens", "64"]
    done = run(FIXTURE, "--dry-run", "--max-rise", "0", *only)
    assert (done.returncode, done.stdout) == (1, "")
    costs = (
        r"error: the first sublayer to go already costs \d\.\d+ nats a token, more than --max-rise 0; allow more\n"
    )
    assert re.fullmatch(costs, done.stderr)


MISTAKES: dict[str, tuple[list[str], int, str]] = {
    "a number beside a limit": (["--drop", "2", "--max-rise", "1"], 2, "--drop and --max-rise exclude each other"),
    "a text that nothing reads": (["--text", "x.txt"], 2, "--text and --tokens are for --by influence"),
    "tokens that nothing reads": (["--tokens", "64", "--no-compensate"], 2, "--text and --tokens are for"),
    "a reading of no use": (["--by", "influence", "--reading", "joint"], 2, "--reading is Gate-Norm's"),
    "beside a plan": (["--plan", "p.json", "--no-compensate"], 2, "--plan already settles --compensate"),
    "a limit beside a plan": (["--plan", "p.json", "--max-rise", "0"], 2, "--max-rise and --plan exclude"),
    "zeroed": (["--compensate", "--format", "zeroed", *FEW], 1, "zeroed holds no constants in this model"),
    "layer 0": (["--compensate", "--layers", "0,3", "--format", "no-op", *FEW], 1, "layer 0 stands in the way"),
    "a layer that is not there": (["--compensate", "--layers", "77", *FEW], 1, "there is no layer 77"),
}


@pytest.mark.parametrize(("options", "code", "says"), MISTAKES.values(), ids=MISTAKES.keys())
def test_mistakes(run: Run, options: list[str], code: int, says: str) -> None:
    done = run(FIXTURE, "--dry-run", *options)
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr.count("\n") == 1
    assert says in done.stderr


@pytest.mark.parametrize(
    ("mistake", "says"),
    [
        ({"by": "inflence"}, "nothing chooses by inflence; give one of gate-norm, influence"),
        ({"max_rise": 0.1, "drop": 2}, "drop, share, layers and max_rise exclude each other"),
        ({"compensate": True, "format": "zeroed"}, "zeroed holds no constants in this model"),
        ({"compensate": True, "text": "nowhere.txt"}, "nowhere.txt can't be read"),
    ],
)
def test_mistakes_in_python(mistake: dict[str, Any], says: str) -> None:
    with pytest.raises(GateNormError, match=re.escape(says)):
        gatenorm_stream.plan(FIXTURE, tokens=TOKENS, **mistake)


def made_up(dropped: tuple[int, ...], rise: float | None = None, constants: bool = False) -> Plan:
    scores = tuple(LayerScore(n, 1.0, ()) for n in range(12))
    measured = None if rise is None else Measured("x", "y", 16, 2.0, 2.0 + rise, 0.1, (0.1,) * 12, "z")
    held = {layer: bytes(8) for layer in dropped} if constants else {}
    return Plan(
        "m", None, "llama", "per-head", scores, dropped, "no-op", choice=Choice(), constants=held, measured=measured
    )


@pytest.mark.parametrize(
    ("plan", "says"),
    [
        (made_up((5, 7)), []),
        (made_up((11,)), []),
        (made_up((5, 7), 0.5), []),
        (made_up((5, 7), 0.51), ["a rise of 0.51 nats a token is much"]),
        (made_up((1, 7)), ["layer 1 goes"]),
        (
            made_up((10, 11)),
            ["in one run; constants (--compensate) helped SmolLM2, not our decoders: measure"],
        ),
        (made_up((10, 11), 0.1, True), ["in one run"]),
        (made_up((5, 6, 7, 8)), ["more than a quarter goes"]),
        (made_up((5, 6, 7, 8), 0.1), []),
    ],
)
def test_cautions(plan: Plan, says: list[str]) -> None:
    told = list(cautions(plan))
    assert len(told) == len(says)
    assert all(said in line for said, line in zip(says, told, strict=True))
    assert not (plan.constants and any("--compensate" in line for line in told))


def test_what_the_command_and_the_card_say(run: Run, output: Path, tmp_path: Path) -> None:
    done = run(FIXTURE, "--out", "plain", "--drop", "1")
    assert done.stdout.endswith(f"\nnot measured: gatenorm-stream measure plain --against {FIXTURE}\n")
    card = (tmp_path / "plain" / "README.md").read_text("utf-8")
    assert "Nobody has measured this output." in card
    assert "chosen from the weights alone" in card
    done = run(FIXTURE, "--out", "out", "--by", "influence", *FEW)
    assert "not measured" not in done.stdout
    assert (before := re.search(r"loss (\d\.\d{3}) before, (\d+\.\d{3}) after", done.stdout))
    card = (tmp_path / "out" / "README.md").read_text("utf-8")
    assert f"{before[1]} nats a token before and\n{before[2]} after" in card
    assert "chosen by block influence" in card
    assert "Nobody has measured" not in card
    assert "weights alone" not in card
    assert "- gate-norm\n" not in card
    assert "constant vector" not in card
    card = (output / "README.md").read_text("utf-8")
    assert "A constant vector takes the place of each: the mean of its output on a text" in card
    assert "Nobody has measured" not in card
    assert "weights alone" in card


def test_the_card_names_no_folder(run: Run, tmp_path: Path) -> None:
    (tmp_path / "private").mkdir()
    (tmp_path / "private" / "notes.txt").write_text("The state of the union is strong, and getting stronger. " * 20)
    done = run(FIXTURE, "--out", "out", "--compensate", "--text", tmp_path / "private/notes.txt", *FEW)
    assert done.returncode == 0, done.stderr
    card = (tmp_path / "out" / "README.md").read_text("utf-8")
    assert "`notes.txt`" in card
    assert "private" not in card


def test_verify_says_what_it_checks(run: Run, output: Path) -> None:
    """And, with --against or without, the command that runs as printed."""
    for against in (("--against", FIXTURE), ()):
        done = run("verify", output, *against)
        assert done.returncode == 0
        last = done.stdout.splitlines()[-1]
        measure = f"gatenorm-stream measure {output} --against {FIXTURE}"
        assert last == f"its bytes are checked, its quality is not: {measure}"


@pytest.mark.slow
@pytest.mark.parametrize("words", [["--out", "out", "--max-rise", "99"], ["measure", "--plot", "losses.svg"]])
def test_interrupted_while_it_measures(words: list[str], tmp_path: Path) -> None:
    """Ctrl-C: one line, exit code 130, and nothing is left."""
    text = tmp_path / "text.txt"
    os.mkfifo(text)
    command = [COMMAND, *words, str(FIXTURE), "--text", str(text), "--tokens", "1024"]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command, cwd=tmp_path, **pipes)
    text.write_bytes(BUILT_IN.read_bytes())  # waits until it is read, right before the model is run
    time.sleep(0.5)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert re.fullmatch(r"(pass \d: .*\n)*interrupted\n", err)
    text.unlink()
    assert not list(tmp_path.iterdir())
