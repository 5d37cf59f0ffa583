"""The output's model card: metadata as the Hub wants it, and what it tells of the output."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard

from tests.conftest import FIXTURE, Run


def carded(llama: Path, **front: Any) -> None:
    (llama / "README.md").write_text(f"---\n{yaml.safe_dump(front)}---\n\nold text\n")


def metadata(tmp_path: Path) -> dict[str, Any]:
    return ModelCard.load(tmp_path / "out/README.md").data.to_dict()


def test_what_the_source_card_says_is_kept(run: Run, llama: Path, tmp_path: Path) -> None:
    kept = {
        "license": "other",
        "license_name": "some-licence",
        "license_link": "LICENSE",
        "language": ["en", "de"],
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "base_model": ["org/ancestor"],
    }
    carded(llama, **kept, tags=["tiny", "pruned"], datasets=["org/data"], model_index=[], co2_eq_emissions=3)
    assert run(llama, "--out", "out").returncode == 0
    expected = {**kept, "base_model_relation": "finetune", "tags": ["tiny", "pruned", "gate-norm"]}
    assert metadata(tmp_path) == expected


def test_what_the_hub_would_refuse_is_left_out(run: Run, llama: Path, tmp_path: Path) -> None:
    carded(
        llama, license=3, language=["en", 5], tags=[1, "kept"], base_model=[], pipeline_tag="", library_name=None
    )
    assert run(llama, "--out", "out").returncode == 0
    assert metadata(tmp_path) == {"tags": ["kept", "gate-norm", "pruned"]}


def test_what_it_tells(run: Run, tmp_path: Path) -> None:
    printed = run(FIXTURE, "--out", "out", "--layers", "7-8").stdout
    card = (tmp_path / "out/README.md").read_text("utf-8")
    for what, before, after, change in re.findall(
        r"^(\w[\w ,]+?)  +(.*?)  +(.*?)  +(\S+ %)$", printed, re.MULTILINE
    ):
        assert f"| {what} | {before} | {after} | {change} |" in card
    assert "KV cache, 1000 tokens | 3.07 MB | 2.56 MB | -16.7 %" in card
    assert "self-attention removed from layers\n7-8 (counted from 0)" in card
    assert "Measure this model on your task before you use it." in card
    headings = re.findall(r"^### (.*)$", card, re.MULTILINE)
    assert headings == ["transformers", "llama.cpp", "mlx-lm", "vLLM"]
    (picture,) = re.findall(r"!\[[^]]+\]\((.*?)\)", card)
    drawn = (tmp_path / "out" / picture).read_text("utf-8")
    (hollow,) = re.findall(r'class="hollow" d="(.*?)"', drawn)
    assert hollow.count("M") == 2
    assert "7–8" in drawn
    assert json.loads((tmp_path / "out/gatenorm.json").read_text())["files"].keys() >= {picture, "README.md"}


@pytest.mark.parametrize(
    ("options", "engines"),
    [
        (["--format", "transformers"], ["transformers", "vLLM"]),
        (["--format", "zeroed"], ["transformers", "llama.cpp", "mlx-lm", "vLLM"]),
        (["--layers", "0", "--engine", "transformers"], ["transformers", "mlx-lm"]),
    ],
    ids=" ".join,
)
def test_only_engines_that_run_it_are_named(
    run: Run, tmp_path: Path, options: list[str], engines: list[str]
) -> None:
    assert run(FIXTURE, "--out", "out", *options).returncode == 0
    card = (tmp_path / "out/README.md").read_text("utf-8")
    assert re.findall(r"^### (.*)$", card, re.MULTILINE) == engines
    assert ("trust_remote_code=True" in card) == ("zeroed" not in options)


def test_a_pruned_model_is_pruned_again(run: Run, tmp_path: Path) -> None:
    """The picture of the first output does not travel into the second."""
    run(FIXTURE, "--out", "out", "--format", "zeroed")
    assert run("out", "--out", "again", "--layers", "3").returncode == 0
    assert "3 (counted" in (tmp_path / "again/README.md").read_text("utf-8")
    assert (tmp_path / "out/gatenorm.svg").read_bytes() != (tmp_path / "again/gatenorm.svg").read_bytes()
