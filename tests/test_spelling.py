"""What is suggested in place of a word that there is not."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from gatenorm_stream.spelling import similar, similar_path

KINDS: dict[str, Callable[[list[str]], Iterable[str]]] = {"list": list, "set": set, "iterator": iter}


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS.keys())
def test_the_most_similar_of_any_iterable(kind: Callable[[list[str]], Iterable[str]]) -> None:
    assert similar("socre", kind(["prune", "score", "verify"])) == "score"
    assert similar("SCORE", kind(["prune", "score"])) == "score"
    assert similar("quantise", kind(["prune", "score"])) is None
    assert similar("score", kind(["score"])) is None


def test_of_words_that_differ_in_case_the_first() -> None:
    assert similar("llama", ["Llama", "LLAMA", "llama"]) == "Llama"


def test_a_file_named_without_its_ending(tmp_path: Path) -> None:
    for name in ("smol.gguf", "smol2", "other.safetensors"):
        (tmp_path / name).touch()
    assert similar_path(tmp_path / "smol") == str(tmp_path / "smol.gguf")
    assert similar_path(tmp_path / "other") is None
