"""A GGUF file whose tokens all have one score, as llama.cpp's converter may leave it, gets its merge order back."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path

import pytest
from gguf import GGUFReader
from hypothesis import given
from hypothesis import strategies as st

import gatenorm_stream
from gatenorm_stream.checkpoint.gguf_metadata import ARRAY, NUMBERS, Value, string
from gatenorm_stream.families.open import open_model
from gatenorm_stream.formats.merge_order import KIND, SCORES, has_lost_merge_order, with_merge_order
from gatenorm_stream.measuring.tokens import encode
from gatenorm_stream.sources.open import open_source
from tests import vocabularies
from tests.conftest import Run
from tests.vocabularies import write_vocabulary

LOST = -1000.0
TEXT = "the people of the United States"


def source(path: Path, score: float | None) -> Path:
    """A Llama of 4 layers; its scores are SentencePiece's, or all `score`."""
    tokens, scores, types = vocabularies.sentencepiece()
    alike = scores if score is None else [score] * len(tokens)
    return write_vocabulary(path, tokens, "llama", scores=alike, types=types, layers=4)


def metadata(path: Path) -> dict[str, object]:
    return {key: field.contents() for key, field in GGUFReader(path).fields.items() if key.startswith("tokenizer.")}


def cut(path: Path) -> list[int]:
    with open_model(open_source(path), pruned=True) as model:
        return list(encode(model.checkpoint, TEXT))


@pytest.mark.parametrize("form", ["no-op", "zeroed"])
def test_lost_scores_are_set(form: str, run: Run, tmp_path: Path) -> None:
    model, out = source(tmp_path / "model.gguf", LOST), tmp_path / "out.gguf"
    done = run(model, "--out", out, "--layers", "3", "--format", form)
    assert "the source scores every token alike" in " ".join(done.stdout.split())
    before, after = metadata(model), metadata(out)
    count = len(vocabularies.sentencepiece()[0])
    assert after.pop(SCORES) == [-float(id) for id in range(count)]
    assert before.pop(SCORES) == [LOST] * count
    assert before == after
    assert cut(out) != cut(model)
    gatenorm_stream.verify(out, against=model)


@pytest.mark.parametrize("form", ["no-op", "zeroed"])
def test_scores_that_differ_stay(form: str, run: Run, tmp_path: Path) -> None:
    model, out = source(tmp_path / "model.gguf", None), tmp_path / "out.gguf"
    done = run(model, "--out", out, "--layers", "3", "--format", form)
    assert "alike" not in done.stdout
    assert metadata(model) == metadata(out)


def test_it_is_measured_against_its_source(run: Run, tmp_path: Path) -> None:
    """On the tokens that the output cuts; of another vocabulary it is refused."""
    model, out = source(tmp_path / "model.gguf", LOST), tmp_path / "out.gguf"
    gatenorm_stream.prune(gatenorm_stream.plan(model, layers=[3], format="no-op"), out)
    told = run("measure", out, "--against", model, "--tokens", "16", "--json")
    assert json.loads(told.stdout)["against"]["rise"]
    tokens, _, types = vocabularies.sentencepiece()
    other = [*reversed(tokens[-9:]), *tokens[9:-9], *tokens[:9]]
    path = write_vocabulary(
        tmp_path / "other.gguf", other, "llama", scores=[LOST] * len(tokens), types=types, layers=4
    )
    refused = run("measure", out, "--against", path, "--tokens", "16")
    assert refused.returncode == 1
    assert "cuts the text into other tokens" in refused.stderr


@given(
    st.sampled_from([kind for kind in NUMBERS if kind]),
    st.lists(st.integers(0, 1), max_size=6),
    st.binary(max_size=4),
)
def test_any_array_is_judged(kind: int, numbers: list[int], rest: bytes) -> None:
    """Only floats of 32 bits count, two or more, all the same."""
    raw = struct.pack(f"<IQ{len(numbers)}{NUMBERS[kind]}", kind, len(numbers), *numbers)
    config: Mapping[str, Value] = {KIND: string("llama"), SCORES: Value(ARRAY, raw)}
    lost = has_lost_merge_order(config)
    assert lost == (kind == 6 and len(numbers) > 1 and len(set(numbers)) == 1)
    assert (with_merge_order(config) == config) == (not lost)
    assert not has_lost_merge_order({**config, KIND: string("gpt2")})
